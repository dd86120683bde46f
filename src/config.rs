//! Configuration of an agent: file, environment and flags resolved into one value.
