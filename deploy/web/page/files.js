// Files of the page's own folder.

import { UserError } from "../lib/index.js";

/**
 * Reads one.
 *
 * @param {string} path In the page's folder.
 * @param {"text" | "arrayBuffer"} as
 * @throws {UserError} It is not there.
 */
export async function fetched(path, as) {
  const response = await fetch(new URL(`../${path}`, import.meta.url)).catch(() => {
    throw new UserError(`${path} cannot be fetched; check the connection, and try again.`);
  });
  if (!response.ok) throw new UserError(`${path} is not there; copy the whole folder of the page to the server.`);
  return response[as]();
}
