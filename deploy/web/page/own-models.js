// Models of a person's own: a new one takes the place of the one before, which would stay in memory.

const OWN = /^(.*-own)\d+$/; // the keys that `ModelChoice` gives them

/**
 * Releases the model that another one of the same choice replaces.
 *
 * @param {Map<string, { session: import("onnxruntime-web").InferenceSession }>} models By their keys.
 * @param {string} key Of the new model.
 */
export async function forgetOwn(models, key) {
  const place = key.match(OWN)?.[1];
  for (const [other, { session }] of models) {
    if (place === undefined || other.match(OWN)?.[1] !== place) continue;
    models.delete(other);
    await session.release();
  }
}
