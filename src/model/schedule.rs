//! Cron and periodic arithmetic; takes the time, never asks for it.
