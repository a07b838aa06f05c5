//! The source's thread against a folder of journal files.
