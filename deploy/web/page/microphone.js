// The microphone, or the reason why there is none.

import { UserError } from "../lib/index.js";

const REASONS = {
  NotFoundError: "No microphone was found; connect one, or",
  NotAllowedError: "The browser did not let this page use the microphone; allow it beside the address, or",
  NotReadableError: "The microphone is in use by another program; close that, or",
};

/**
 * Opens the microphone.
 *
 * @param {string} instead What a person can do without one, for messages, such as "open a file".
 * @returns {Promise<MediaStream>}
 * @throws {UserError} There is none, or it may not be used.
 */
export async function openMicrophone(instead) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new UserError(`Browsers allow the microphone on HTTPS pages only; ${instead}.`);
  }
  try {
    // What makes speech clear on a telephone would change the mixture.
    const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    return await navigator.mediaDevices.getUserMedia({ audio: plain });
  } catch (error) {
    const reason = REASONS[error.name] ?? `The microphone cannot be used (${error.message});`;
    throw new UserError(`${reason} ${instead}.`);
  }
}
