fn main() -> hydrant_build::Result {
    hydrant_build::compile("proto", &["greet.proto"])
}
