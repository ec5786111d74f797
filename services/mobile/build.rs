fn main() -> hydrant_build::Result {
    hydrant_build::compile("proto", &["hydrant/mobile/v1/documents.proto"])
}
