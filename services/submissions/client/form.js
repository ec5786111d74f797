// A form out of a JSON Schema: labelled inputs, mistakes beside them, and the value that they make.
// What users or schemas say becomes text and never markup.

import { fieldsOf, inputType, mistakes } from "./schema.js";

/** Makes an element: properties, then children. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name in made && name !== "list" && name !== "form") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/**
 * The inputs of a schema.
 *
 * @param {object} schema the JSON Schema of an object
 * @param {{ prefix?: string, values?: object }} [options] `prefix` makes ids unique on the page
 */
export class SchemaForm {
  #schema;
  #prefix;
  /** Of each field: its input, and how it is read and written. By pointer. */
  #controls = new Map();

  constructor(schema, { prefix = "field", values = {} } = {}) {
    this.#schema = schema;
    this.#prefix = prefix;
    this.element = element("div", { className: "fields" }, ...this.#rows(fieldsOf(schema), values, 0));
  }

  /** What is entered. What is empty is not in it. */
  get value() {
    return this.#read(fieldsOf(this.#schema), 0);
  }

  /** Checks what is entered, shows what is wrong, and gives the mistakes. */
  check() {
    const found = mistakes(this.#schema, this.value);
    for (const [pointer, { unreadable }] of this.#controls) {
      if (unreadable?.()) found.unshift({ pointer, message: unreadable() });
    }
    return this.show(found);
  }

  /**
   * Shows mistakes beside their fields, and the first one is where the user goes on. Gives those that belong
   * to no field of this form.
   */
  show(found) {
    for (const { input, note } of this.#controls.values()) {
      input.removeAttribute("aria-invalid");
      note.textContent = "";
    }
    let first = null;
    for (const { pointer, message } of found) {
      const control = this.#controls.get(pointer);
      if (!control || control.note.textContent !== "") continue;
      control.input.setAttribute("aria-invalid", "true");
      control.note.textContent = `${control.label} ${message}`;
      first ??= control.input;
    }
    first?.focus();
    return found;
  }

  /** Whether there is a field for a mistake. */
  has(pointer) {
    return this.#controls.has(pointer);
  }

  #rows(fields, values, depth) {
    return fields.map((field) => this.#row(field, values?.[field.name] ?? field.schema.default, depth));
  }

  #row(field, value, depth) {
    const { schema, name } = field;
    const label = schema.title || spoken(name);
    if (field.kind === "group") {
      const rows = this.#rows(this.#inner(field, depth), value, depth + 1);
      return element("fieldset", {}, element("legend", { textContent: label }), ...hint(schema), ...rows);
    }
    const id = `${this.#prefix}-${this.#controls.size}`;
    const control = makeControl(field, id, value);
    const note = element("p", { id: `${id}-note`, className: "mistake" });
    this.#controls.set(field.pointer, { ...control, note, label });
    control.input.setAttribute("aria-describedby", `${id}-hint ${id}-note`);
    const text = element("label", { htmlFor: id }, label, ...mark(field));
    const hints = hint(schema, `${id}-hint`, field.kind);
    const isSwitch = field.kind === "switch";
    const line = isSwitch ? [element("div", { className: "switch" }, control.input, text)] : [text, control.input];
    return element("div", { className: "field" }, ...line, ...hints, note);
  }

  #inner({ schema, pointer }, depth) {
    return fieldsOf(schema, this.#schema, pointer, depth + 1);
  }

  #read(fields, depth) {
    const value = {};
    for (const field of fields) {
      const isGroup = field.kind === "group";
      const own = isGroup ? this.#read(this.#inner(field, depth), depth + 1) : this.#controls.get(field.pointer).read();
      const isEmptyGroup = isGroup && Object.keys(own).length === 0 && !field.required;
      if (own !== undefined && !isEmptyGroup) value[field.name] = own;
    }
    return value;
  }
}

/** A name as people write it: `zipCode` becomes `Zip code`. */
function spoken(name) {
  const words = name.replace(/([a-z\d])([A-Z])/g, (_, before, after) => `${before} ${after.toLowerCase()}`).replace(/[_-]+/g, " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function mark({ required }) {
  return required ? [] : [element("span", { className: "optional", textContent: " (optional)" })];
}

function hint({ description }, id, kind) {
  const text = [description, kind === "lines" ? "One in each line." : "", kind === "json" ? "As JSON." : ""];
  const words = text.filter(Boolean).join(" ");
  return words ? [element("p", { id, className: "hint", textContent: words })] : [];
}

/** An input of a field, and how it is read: `undefined` where nothing is entered. */
function makeControl(field, id, value) {
  const { schema, required, kind } = field;
  const base = { id, name: field.pointer, ariaRequired: required ? "true" : null, autocomplete: "off" };
  switch (kind) {
    case "choice":
      return choice(base, schema, value);
    case "text":
      return textual(element("textarea", { ...base, rows: 4, value: entered(schema, value) }), schema);
    case "number":
      return numeric(base, schema, value);
    case "switch":
      return switched(base, value);
    case "lines":
      return lines(base, value);
    case "json":
      return structured(base, value);
    default:
      return textual(element("input", { ...base, type: inputType(schema), value: entered(schema, value) }), schema);
  }
}

function textual(input, { maxLength, format }) {
  if (maxLength > 0 && maxLength < 100_000) input.maxLength = maxLength;
  const read = () => input.value === "" ? undefined : format === "date-time" ? instant(input.value) : input.value;
  return { input, read };
}

/** What stands in an input for a value; times are local there. */
function entered({ format }, value) {
  if (format !== "date-time" || !value) return value ?? "";
  const time = new Date(value);
  if (Number.isNaN(time.getTime())) return "";
  return new Date(time - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

/** A local date and time as RFC 3339 has it. */
function instant(local) {
  const time = new Date(local);
  return Number.isNaN(time.getTime()) ? local : time.toISOString();
}

function numeric(base, schema, value) {
  const isWhole = schema.type === "integer";
  const input = element("input", { ...base, type: "text", inputMode: isWhole ? "numeric" : "decimal", value: value ?? "" });
  const read = () => (input.value.trim() === "" ? undefined : Number(input.value.trim().replace(",", ".")));
  return { input, read, unreadable: () => (Number.isNaN(read() ?? 0) ? "must be a number" : null) };
}

function switched(base, value) {
  const input = element("input", { ...base, type: "checkbox", checked: value === true });
  return { input, read: () => input.checked };
}

function choice(base, schema, value) {
  const texts = schema.enum.map((one) => (typeof one === "string" ? one : JSON.stringify(one)));
  const options = texts.map((text, at) => element("option", { value: String(at), textContent: text }));
  const input = element("select", base, element("option", { value: "", textContent: "Choose…" }), ...options);
  const at = schema.enum.findIndex((one) => JSON.stringify(one) === JSON.stringify(value));
  input.value = at >= 0 ? String(at) : "";
  return { input, read: () => (input.value === "" ? undefined : schema.enum[Number(input.value)]) };
}

function lines(base, value) {
  const text = Array.isArray(value) ? value.join("\n") : "";
  const input = element("textarea", { ...base, rows: 3, value: text });
  const list = () => input.value.split("\n").map((line) => line.trim()).filter(Boolean);
  return { input, read: () => (list().length === 0 ? undefined : list()) };
}

function structured(base, value) {
  const text = value === undefined ? "" : JSON.stringify(value, null, 2);
  const input = element("textarea", { ...base, rows: 4, spellcheck: false, value: text });
  const parse = () => (input.value.trim() === "" ? undefined : JSON.parse(input.value));
  return { input, read: () => attempt(parse, input.value), unreadable: () => attempt(() => void parse(), "is not JSON") };
}

function attempt(work, otherwise) {
  try {
    return work();
  } catch {
    return otherwise;
  }
}
