//! The live server, over SQL.
