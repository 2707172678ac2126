"""Models of a TensorFlow Serving, over REST or gRPC, with the same `separate` as a file's.

    model = runtime.load("http://127.0.0.1:8501/v1/models/mnist")
    model = runtime.load("grpc://127.0.0.1:8500/mnist/labels/stable", server=ServerOptions(deadline=5))

REST needs the standard library and NumPy. gRPC needs the extra "serving"; tensorflow-serving-api imports all of
TensorFlow, which takes some seconds and a few hundred megabytes.
"""

from vae_bss_tf.runtime.remote.address import Address
from vae_bss_tf.runtime.remote.model import RemoteModel, Transport
from vae_bss_tf.runtime.remote.options import ServerOptions

__all__ = ["RemoteModel", "ServerOptions", "connect"]


def connect(url: str, options: ServerOptions) -> RemoteModel:
    """Connects to a model of a server and reads what it is.

    Args:
        url: `http://HOST:PORT/v1/models/NAME` or `grpc://HOST:PORT/NAME`, either with `/versions/NUMBER` or
            `/labels/LABEL` after it; the latest version otherwise.
        options: Deadline, retries and the like.

    Returns:
        The model.

    Raises:
        ConfigError: The URL is no such URL, or gRPC is not installed.
        CheckpointError: The model is not ours, or differs from the manifest in the options.
        ServerError: The server cannot be reached, has no such model, or is no TensorFlow Serving.
    """
    address = Address.parse(url)
    transport: Transport
    if address.scheme == "http":
        from vae_bss_tf.runtime.remote.rest import RestTransport

        transport = RestTransport(address, options)
    else:
        from vae_bss_tf.runtime.remote.rpc import GrpcTransport

        transport = GrpcTransport(address, options)
    try:
        return RemoteModel(address, options, transport)
    except BaseException:
        transport.close()
        raise
