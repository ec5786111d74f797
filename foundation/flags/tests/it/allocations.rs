//! An evaluation of the common kinds allocates nothing: counted, not believed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::time::Instant;

use hydrant_flags::{Context, Definitions};
use serde_json::{Map, Value, json};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is handed on to the system's allocator as it came; the counter beside it is a plain
// thread-local cell, which needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promises for this call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises for this call.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Flags of the kinds that definitions have most, each with a rule.
fn rules() -> Map<String, Value> {
    let rules = json!({
        "static": {},
        "equal": {"if": [{"==": [{"var": "plan"}, "gold"]}, "on", "off"]},
        "number": {"if": [{"and": [{">=": [{"var": "age"}, 18]}, {"<": [{"var": "age"}, 65]}]}, "on", "off"]},
        "nested": {"if": [{"in": [{"var": "user.country"}, ["DE", "FR", "NL"]]}, "on", "off"]},
        "prefix": {"if": [{"ends_with": [{"var": "email"}, "@example.com"]}, "on", "off"]},
        "version": {"if": [{"sem_ver": [{"var": "version"}, ">=", "4.2.0"]}, "on", "off"]},
        "fractional": {"fractional": [["on", 10], ["off", 90]]},
        "keyed": {"fractional": [{"var": "email"}, ["on", 10], ["off", 90]]},
        "shared": {"if": [{"$ref": "staff"}, "on", null]},
        "some": {"if": [{"some": [{"var": "orders"}, {">": [{"var": "total"}, 100]}]}, "on", "off"]},
    });
    rules.as_object().unwrap().clone()
}

fn definitions() -> Definitions {
    let variants = json!({"on": true, "off": false});
    let flags: Map<_, _> = rules()
        .into_iter()
        .map(|(key, rule)| {
            let flag = json!({"state": "ENABLED", "variants": variants, "defaultVariant": "off", "targeting": rule});
            (key, flag)
        })
        .collect();
    let staff = json!({"ends_with": [{"var": "email"}, "@staff.example.com"]});
    let set = json!({"flags": flags, "$evaluators": {"staff": staff}});
    Definitions::compile([("set", set.to_string().as_str())]).unwrap()
}

fn attributes() -> Map<String, Value> {
    let attributes = json!({
        "targetingKey": "user-4711",
        "plan": "gold",
        "age": 41,
        "user": {"country": "NL"},
        "email": "ada@example.com",
        "version": "4.10.1",
        "orders": [{"total": 12.5}, {"total": 99}, {"total": 250}],
    });
    attributes.as_object().unwrap().clone()
}

#[test]
fn the_common_rules_are_evaluated_without_an_allocation() {
    let (definitions, attributes) = (definitions(), attributes());
    let context = Context {
        targeting_key: Some("user-4711"),
        attributes: &attributes,
        now_unix: 1_800_000_000,
    };
    for flag in definitions.iter() {
        let before = ALLOCATIONS.get();
        let evaluation = black_box(flag.evaluate(black_box(&context)));
        let allocations = ALLOCATIONS.get() - before;
        let evaluation = evaluation.unwrap();
        let nanos = nanos(|| drop(black_box(flag.evaluate(black_box(&context)))));
        println!(
            "{:<12} {:<16} {nanos:>6.0} ns  {allocations} allocations",
            flag.key(),
            evaluation.reason.as_str()
        );
        assert_eq!(allocations, 0, "{}", flag.key());
    }
}

/// How long one call takes.
fn nanos(work: impl Fn()) -> f64 {
    const CALLS: u32 = 20_000;
    let start = Instant::now();
    (0..CALLS).for_each(|_| work());
    start.elapsed().as_nanos() as f64 / f64::from(CALLS)
}

#[test]
fn the_counter_counts() {
    let before = ALLOCATIONS.get();
    drop(black_box(String::from("counted")));
    assert!(ALLOCATIONS.get() > before);
}
