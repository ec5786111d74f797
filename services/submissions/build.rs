fn main() -> hydrant_build::Result {
    hydrant_build::compile(
        "proto",
        &[
            "hydrant/submissions/v1/audit.proto",
            "hydrant/submissions/v1/deliveries.proto",
            "hydrant/submissions/v1/exposure.proto",
            "hydrant/submissions/v1/sites.proto",
            "hydrant/submissions/v1/submissions.proto",
        ],
    )
}
