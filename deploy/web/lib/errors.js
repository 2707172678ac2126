/** What a person can mend: the message is one sentence or two that say what is wrong and what to do. */
export class UserError extends Error {
  name = "UserError";
}
