//! The service as callers meet it: over the wire.
