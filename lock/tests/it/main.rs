//! The lock against real Redis servers.
