/** Separates recordings by exported models of vae-bss-tf, in a browser or under Node.js; see docs/web.md. */

export { UserError } from "./errors.js";
export { describeLive, LiveSeparator, readLiveManifest } from "./live.js";
export { LiveBuffer } from "./live-buffer.js";
export { checkFile, listedFile, Model, readManifest } from "./model.js";
export { Resampler } from "./resample.js";
export { checkRecording, Separator } from "./separator.js";
export { Spectrogram } from "./spectrogram.js";
export { asWav, encodeSamples, numClipped, openWav, WavFormat, wavHeader } from "./wav.js";
