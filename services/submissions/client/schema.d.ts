export interface Field {
  name: string;
  /** Its JSON pointer within the form. */
  pointer: string;
  /** Its own schema, behind references. */
  schema: Record<string, unknown>;
  required: boolean;
  kind: "input" | "text" | "number" | "switch" | "choice" | "lines" | "group" | "json";
}

/** The fields of an object's schema, in the order in which they stand there. */
export function fieldsOf(schema: Record<string, unknown>): Field[];

/** What is wrong with a value; the first mistake of each field. The service checks again, and more. */
export function mistakes(schema: Record<string, unknown>, value: unknown): { pointer: string; message: string }[];

/** Whether a media type fits one of the patterns, as `image/*`; no patterns allow all. */
export function isAllowed(type: string, patterns?: string[]): boolean;
