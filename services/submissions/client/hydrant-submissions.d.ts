/** What the library needs to know of the service and of who uses it. */
export interface Options {
  /** The service, as `/api/submissions`; of the same origin as the page. */
  base: string;
  /** Sent as `X-Store-Id` with each submission that is made. */
  storeId?: string;
  /** Sent as `X-User-Id`. */
  userId?: string;
  /** Sent as `X-Session-Id`; a random one where it is missing. */
  sessionId?: string;
}

export interface Sender {
  storeId: string;
  userId: string;
  sessionId: string;
}

/** Why a submission was not taken, in the words of the service. */
export interface SubmissionProblem {
  title: string;
  /** How to mend it. */
  mend?: string;
  /** The HTTP status. */
  status?: number;
  /** For programs, as `fields_invalid`. */
  reason?: string;
  /** What is wrong with which field, by JSON pointer. */
  errors?: { pointer: string; message: string }[];
}

export interface Attachment {
  name: string;
  /** The media type that the browser gave it; may be empty. */
  type: string;
  /** In bytes. */
  size: number;
  /** How many of them the service has. */
  sent: number;
}

/**
 * - `waiting`: kept here, and sent when it can be; `problem` says what was in the way last
 * - `sending`: on its way now
 * - `failed`: the service refuses it; somebody has to correct, retry or remove it
 * - `sent`: the service has it, and delivers it
 */
export type State = "waiting" | "sending" | "failed" | "sent";

export interface Submission {
  /** A UUID: the correlation id under which the service knows it. */
  id: string;
  form: string;
  fields: Record<string, unknown>;
  files: Attachment[];
  sender: Sender;
  state: State;
  /** Milliseconds since 1970, as all times here. */
  madeAt: number;
  sentAt?: number;
  /** The reference number, once the consumer has given it. */
  reference?: string;
  /** What the service says of one that was sent. */
  there?: "submitted" | "delivered" | "parked" | "dropped";
  problem: SubmissionProblem | null;
  /** When the next attempt is due. */
  retryAt?: number;
}

export interface NewSubmission {
  form: string;
  fields: Record<string, unknown>;
  files?: Iterable<File>;
}

export interface Draft {
  fields: Record<string, unknown>;
  files: File[];
}

export interface Form {
  name: string;
  /** The JSON Schema of its fields. */
  schema: Record<string, unknown>;
  /** Which files may be attached: absent or `null` when none may. */
  attachments?: { maxCount: number; maxSize: number; types: string[] } | null;
}

/** The browser has no room left; nothing was kept of what was asked for. */
export class StorageFull extends Error {}

/** There is no such submission any more, or it can't be corrected because it may be sent already. */
export class Removed extends Error {}

export class Queue {
  constructor(options: Options);
  /** Called with the new list after each change, also by other tabs. */
  onchange: ((list: Submission[]) => void) | null;
  /** Whose submissions the next ones are; those that are kept stay whose they are. */
  set sender(sender: { storeId?: string; userId?: string });
  /** Begins to send by itself: `open` has done it. */
  start(): void;
  /**
   * Keeps a submission and gives its id; when this is done, it survives. The draft of its form is gone then.
   *
   * @throws {StorageFull}
   */
  add(submission: NewSubmission): Promise<string>;
  /** What is kept, the oldest first. What was sent is kept for a week. */
  list(): Promise<Submission[]>;
  /** Sends what is due. With `now`, what waits for its next attempt is due too. */
  sync(options?: { now?: boolean }): Promise<void>;
  /** Forgets a submission. One that is under way right now may arrive all the same. */
  remove(id: string): Promise<void>;
  /** Tries one that failed once more. */
  retry(id: string): Promise<void>;
  /** Makes one that failed the draft of its form. */
  correct(id: string): Promise<Draft & { form: string; problem: SubmissionProblem | null }>;
  /** Keeps what was typed or attached and not sent yet. What is not given stays as it is. */
  keepDraft(form: string, draft: Partial<Draft>): Promise<void>;
  draft(form: string): Promise<Draft>;
  dropDraft(form: string): Promise<void>;
  /** The forms of the service; without a connection those that it had last. */
  forms(): Promise<Form[]>;
  /**
   * Room in bytes, as far as the browser tells: Chromium always says that there are 10 GiB more. And whether it has
   * promised to keep what is here.
   */
  storage(): Promise<{ usage?: number; quota?: number; persisted: boolean }>;
  close(): void;
}

/** Opens the queue of a service; it begins to send what is waiting. */
export function open(options: Options): Promise<Queue>;

/** The tag of the background sync that `add` asks for; a service worker answers it with `sync`. */
export const SYNC_TAG: string;
