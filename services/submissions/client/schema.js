// A form's JSON Schema as people fill it in: which fields there are, and what is wrong with what they typed.
// The service checks everything again; here only what helps while typing is checked.

/** No form nests deeper. */
const DEEPEST = 4;

/**
 * The fields of an object's schema, in the order in which they stand there.
 *
 * @returns {{ name: string, pointer: string, schema: object, required: boolean, kind: string }[]}
 */
export function fieldsOf(schema, root = schema, pointer = "", depth = 0) {
  const { properties = {}, required = [] } = resolved(schema, root);
  return Object.entries(properties).map(([name, given]) => {
    const own = resolved(given, root);
    const field = { name, pointer: `${pointer}/${escaped(name)}`, schema: own, required: required.includes(name) };
    return { ...field, kind: depth < DEEPEST ? kindOf(own, root) : "json" };
  });
}

/** How a value is entered: what has no input of its own is entered as JSON. */
function kindOf(schema, root) {
  if (Array.isArray(schema.enum)) return "choice";
  switch (typeOf(schema)) {
    case "string":
      return schema.format in INPUTS ? "input" : isLong(schema) ? "text" : "input";
    case "integer":
    case "number":
      return "number";
    case "boolean":
      return "switch";
    case "array":
      return isText(resolved(schema.items ?? {}, root)) ? "lines" : "json";
    default:
      return schema.properties ? "group" : "json";
  }
}

/** The types of HTML inputs, by the formats of strings. */
const INPUTS = { email: "email", date: "date", time: "time", uri: "url", "date-time": "datetime-local" };

export function inputType(schema) {
  return INPUTS[schema.format] ?? "text";
}

function isLong({ maxLength, format }) {
  return format === "multiline" || maxLength > 200;
}

function isText(schema) {
  return typeOf(schema) === "string" && !schema.enum;
}

/** The type, also where `null` is allowed beside it. */
function typeOf({ type }) {
  return Array.isArray(type) ? type.find((one) => one !== "null") : type;
}

/** The schema behind a `$ref` into the same document. */
export function resolved(schema, root) {
  let found = schema;
  for (let hops = 0; typeof found?.$ref === "string" && hops < DEEPEST; hops += 1) {
    const { $ref, ...beside } = found;
    const [document, ...path] = $ref.split("/").map(unescaped);
    const behind = document === "#" ? path.reduce((at, name) => at?.[name], root) : {};
    found = { ...behind, ...beside };
  }
  return found && typeof found === "object" ? found : {};
}

/**
 * What is wrong with a value: the first mistake of each field, as the service tells it.
 *
 * @returns {{ pointer: string, message: string }[]}
 */
export function mistakes(schema, value, root = schema, pointer = "", depth = 0) {
  return fieldsOf(schema, root, pointer, depth).flatMap((field) => {
    const given = value?.[field.name];
    const isEntered = given !== undefined || field.required;
    if (field.kind === "group") {
      return isEntered ? mistakes(field.schema, given, root, field.pointer, depth + 1) : [];
    }
    const isNothing = given === undefined || given === "" || (Array.isArray(given) && given.length === 0);
    if (isNothing) return field.required ? [mistake(field, "is needed")] : [];
    const message = wrong(field.schema, given);
    return message ? [mistake(field, message)] : [];
  });
}

function mistake({ pointer }, message) {
  return { pointer, message };
}

function wrong(schema, value) {
  if (typeof value === "string") return wrongText(schema, value);
  if (typeof value === "number") return wrongNumber(schema, value);
  if (Array.isArray(value)) return wrongList(schema, value);
  return null;
}

function wrongText({ minLength = 0, maxLength = Infinity, pattern }, value) {
  const { length } = [...value];
  if (length < minLength) return `needs at least ${minLength} characters`;
  if (length > maxLength) return `has ${length} characters; ${maxLength} are allowed`;
  return pattern && !fits(pattern, value) ? "does not look right" : null;
}

function fits(pattern, value) {
  try {
    return new RegExp(pattern, "u").test(value);
  } catch {
    // A pattern that browsers can't read is the service's to check.
    return true;
  }
}

function wrongNumber(schema, value) {
  if (!Number.isFinite(value)) return "must be a number";
  if (typeOf(schema) === "integer" && !Number.isInteger(value)) return "must be a whole number";
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum } = schema;
  if (value < minimum) return `must be at least ${minimum}`;
  if (value > maximum) return `must be at most ${maximum}`;
  if (value <= exclusiveMinimum) return `must be more than ${exclusiveMinimum}`;
  if (value >= exclusiveMaximum) return `must be less than ${exclusiveMaximum}`;
  return null;
}

function wrongList({ minItems = 0, maxItems = Infinity }, value) {
  if (value.length < minItems) return `needs at least ${minItems} lines`;
  return value.length > maxItems ? `has ${value.length} lines; ${maxItems} are allowed` : null;
}

/** A name within a JSON pointer. */
function escaped(name) {
  return name.replaceAll("~", "~0").replaceAll("/", "~1");
}

function unescaped(part) {
  return part.replaceAll("~1", "/").replaceAll("~0", "~");
}

/** Whether a file may be attached, by the patterns of a form, as `image/*`. */
export function isAllowed(type, patterns) {
  if (!patterns?.length) return true;
  return patterns.some((one) => one === "*/*" || one === type || (one.endsWith("/*") && type.startsWith(one.slice(0, -1))));
}
