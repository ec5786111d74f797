// Evaluates flags as the public evaluators in JavaScript do: one case a line on standard input,
// {"set", "key", "context"}; one answer a line, {"flagd", "jsonlogic"}. The first is flagd's own evaluator,
// the second the original implementation of JSONLogic with flagd's operators taken from the first.

import { createInterface } from 'node:readline';
import { FlagdCore } from '@openfeature/flagd-core';
import jsonLogic from 'json-logic-js';

const nothing = () => {};
const silent = { error: nothing, warn: nothing, info: nothing, debug: nothing };

function load(set) {
  const core = new FlagdCore(undefined, silent);
  core.setConfigurations(JSON.stringify(set));
  return core;
}

function flagd(set, key, context) {
  const flag = load(set).getFlag(key);
  if (flag.state === 'DISABLED') return { reason: 'DISABLED' };
  const said = flag.evaluate(context, silent);
  if (said.errorCode) return { error: true };
  return { variant: said.variant, value: said.value, reason: said.reason };
}

// One of flagd's operators with arguments that are values already.
function operator(name) {
  return function (...values) {
    const names = values.flatMap((value) => (Array.isArray(value) ? [value[0]] : [])).concat(true, false);
    const variants = Object.fromEntries(names.map((value) => [String(value), String(value)]));
    const targeting = { [name]: values.map((_, index) => ({ var: `argument${index}` })) };
    const own = this && this.$flagd ? this : { $flagd: { flagKey: '' } };
    const key = own.$flagd.flagKey;
    const context = Object.fromEntries(values.map((value, index) => [`argument${index}`, value]));
    if (own.targetingKey !== undefined) context.targetingKey = own.targetingKey;
    const set = { flags: { [key]: { state: 'ENABLED', variants, targeting } } };
    const said = load(set).getFlag(key).evaluate(context, silent);
    if (said.errorCode) throw new Error(said.errorMessage);
    return said.reason === 'DEFAULT' ? null : names.find((value) => String(value) === said.variant);
  };
}

for (const name of ['fractional', 'sem_ver', 'starts_with', 'ends_with']) {
  jsonLogic.add_operation(name, operator(name));
}

// Puts the evaluators in where they are referred to.
function resolved(rule, evaluators) {
  if (Array.isArray(rule)) return rule.map((item) => resolved(item, evaluators));
  if (rule === null || typeof rule !== 'object') return rule;
  if (typeof rule.$ref === 'string') return resolved(evaluators[rule.$ref], evaluators);
  return Object.fromEntries(Object.entries(rule).map(([name, value]) => [name, resolved(value, evaluators)]));
}

function original(set, key, context) {
  const flag = set.flags[key];
  if (flag.state === 'DISABLED') return { reason: 'DISABLED' };
  const now = Math.floor(Date.now() / 1000);
  const data = { ...context, $flagd: { flagKey: key, timestamp: now } };
  const targeting = flag.targeting && Object.keys(flag.targeting).length > 0;
  const said = targeting ? jsonLogic.apply(resolved(flag.targeting, set.$evaluators || {}), data) : null;
  const matched = said !== null && said !== undefined;
  const variant = matched ? String(said) : flag.defaultVariant;
  if (variant === null || variant === undefined) return { reason: 'DEFAULT' };
  if (!Object.hasOwn(flag.variants, variant)) return { error: true };
  const reason = matched ? 'TARGETING_MATCH' : targeting ? 'DEFAULT' : 'STATIC';
  return { variant, value: flag.variants[variant], reason };
}

function attempt(evaluate, { set, key, context }) {
  try {
    return evaluate(set, key, context);
  } catch (error) {
    return { error: true };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const one = JSON.parse(line);
  console.log(JSON.stringify({ flagd: attempt(flagd, one), jsonlogic: attempt(original, one) }));
}
