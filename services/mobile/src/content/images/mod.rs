//! Images: taken in by `service/mobile`, kept in the object store, and shown by `api/mobile`.

pub(crate) mod picture;
pub(crate) mod scale;
pub(crate) mod store;
