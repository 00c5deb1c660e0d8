//! Frames, literally, and what keys do to them.
