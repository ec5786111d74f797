fn main() -> hydrant_build::Result {
    hydrant_build::compile(
        "proto",
        &[
            "hydrant/mobile/v1/configuration.proto",
            "hydrant/mobile/v1/content.proto",
            "hydrant/mobile/v1/documents.proto",
            "hydrant/mobile/v1/experiments.proto",
            "hydrant/mobile/v1/operations.proto",
        ],
    )
}
