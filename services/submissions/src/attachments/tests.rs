//! Whatever is cut, restarted and repeated: the bytes are those that were sent.
