/** Makes an element; what is text stays text. */
export function element(tag: string, properties?: Record<string, unknown>, ...children: (Node | string | null | undefined)[]): HTMLElement;

export interface Mistake {
  /** The JSON pointer of the field. */
  pointer: string;
  message: string;
}

/** The inputs of a JSON Schema. */
export class SchemaForm {
  constructor(schema: Record<string, unknown>, options?: { prefix?: string; values?: Record<string, unknown> });
  /** To be put into the page. */
  readonly element: HTMLElement;
  /** What is entered. What is empty is not in it. */
  readonly value: Record<string, unknown>;
  /** Checks what is entered, shows what is wrong beside the fields, and gives the mistakes. */
  check(): Mistake[];
  /** Shows mistakes that somebody else has found, as the service. */
  show(mistakes: Mistake[]): Mistake[];
  /** Whether there is a field for a mistake. */
  has(pointer: string): boolean;
}
