//! libsystemd, loaded when the program runs. The only file with unsafe code.
//!
//! **What is relied on** (sd-journal(3)): a handle is used by one thread at a time ([`LibraryReader`]
//! is neither `Send` nor `Sync`); the bytes that `sd_journal_enumerate_data` points to stay valid
//! until the next call on the same handle (they are copied before); a cursor's text belongs to the
//! caller and is freed with free(3). The library stays loaded for the life of the program.
//!
//! **Versions.** All functions are there since systemd 245 (2020). `sd_journal_get_seqnum` (254)
//! is used, where it is there, to check that the cursor is understood.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;
use std::time::Duration;

use crate::{Entry, EntryReader, Id128, JournalError, Seek, Target, Wake};

/// The library's file name: its ABI, unchanged since 2013.
const NAME: &str = "libsystemd.so.0";
/// `SD_JOURNAL_LOCAL_ONLY`.
const LOCAL_ONLY: c_int = 1;
const WAKE_APPEND: c_int = 1;
const WAKE_INVALIDATE: c_int = 2;

type Handle = *mut c_void;

/// Declares the table of functions and how it is filled.
macro_rules! functions {
    ($($(#[$about:meta])* $field:ident = $symbol:literal ($($arg:ty),*) -> $ret:ty;)*) => {
        #[derive(Clone, Copy)]
        struct Functions {
            $($(#[$about])* $field: unsafe extern "C" fn($($arg),*) -> $ret,)*
            seqnum: Option<unsafe extern "C" fn(Handle, *mut u64, *mut [u8; 16]) -> c_int>,
        }

        impl Functions {
            fn load(loaded: &Loaded) -> Result<Self, JournalError> {
                Ok(Self {
                    $($field: {
                        let address = loaded.symbol(concat!($symbol, "\0"))
                            .ok_or_else(|| JournalError::NoSymbol { name: loaded.name.clone(), symbol: $symbol })?;
                        // SAFETY: the address is not null and is that of the function of this name in
                        // libsystemd, whose type sd-journal.h declares so; an object pointer and a
                        // function pointer have the same size on every platform with dlsym (POSIX).
                        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($arg),*) -> $ret>(address) }
                    },)*
                    seqnum: loaded.symbol("sd_journal_get_seqnum\0").map(|address| {
                        // SAFETY: as above.
                        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Handle, *mut u64, *mut [u8; 16]) -> c_int>(address) }
                    }),
                })
            }
        }
    };
}

functions! {
    open = "sd_journal_open" (*mut Handle, c_int) -> c_int;
    open_namespace = "sd_journal_open_namespace" (*mut Handle, *const c_char, c_int) -> c_int;
    open_directory = "sd_journal_open_directory" (*mut Handle, *const c_char, c_int) -> c_int;
    open_files = "sd_journal_open_files" (*mut Handle, *mut *const c_char, c_int) -> c_int;
    close = "sd_journal_close" (Handle) -> ();
    set_data_threshold = "sd_journal_set_data_threshold" (Handle, usize) -> c_int;
    seek_head = "sd_journal_seek_head" (Handle) -> c_int;
    seek_cursor = "sd_journal_seek_cursor" (Handle, *const c_char) -> c_int;
    test_cursor = "sd_journal_test_cursor" (Handle, *const c_char) -> c_int;
    next = "sd_journal_next" (Handle) -> c_int;
    get_cursor = "sd_journal_get_cursor" (Handle, *mut *mut c_char) -> c_int;
    restart_data = "sd_journal_restart_data" (Handle) -> ();
    enumerate_data = "sd_journal_enumerate_data" (Handle, *mut *const c_void, *mut usize) -> c_int;
    add_match = "sd_journal_add_match" (Handle, *const c_void, usize) -> c_int;
    flush_matches = "sd_journal_flush_matches" (Handle) -> ();
    wait = "sd_journal_wait" (Handle, u64) -> c_int;
}

/// A shared object that dlopen(3) gave.
struct Loaded {
    handle: *mut c_void,
    name: String,
}

impl Loaded {
    fn open(name: &str) -> Result<Self, JournalError> {
        let text =
            CString::new(name).map_err(|_| JournalError::Nul { what: "the library's name" })?;
        // SAFETY: the name is NUL-terminated. Loading runs the library's constructors: libsystemd's
        // have no demands on the caller.
        let handle = unsafe { libc::dlopen(text.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(JournalError::NoLibrary { name: name.to_owned(), reason: dl_error() });
        }
        Ok(Self { handle, name: name.to_owned() })
    }

    /// The address of a symbol; `name` ends with a NUL.
    fn symbol(&self, name: &str) -> Option<*mut c_void> {
        let name = CStr::from_bytes_with_nul(name.as_bytes()).ok()?;
        // SAFETY: the handle came from dlopen and is never closed; the name is NUL-terminated.
        let address = unsafe { libc::dlsym(self.handle, name.as_ptr()) };
        (!address.is_null()).then_some(address)
    }
}

fn dl_error() -> String {
    // SAFETY: dlerror has no preconditions; it returns null or a text of this thread.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the loader gives no reason".into();
    }
    // SAFETY: not null, NUL-terminated, and valid until the next dl call of this thread.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}

/// The loaded library.
#[derive(Clone, Copy)]
pub struct Library {
    functions: Functions,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").finish_non_exhaustive()
    }
}

impl Library {
    /// The system's libsystemd, loaded once.
    ///
    /// # Errors
    /// It is not there, or is older than systemd 245. It is asked for again the next time.
    pub fn get() -> Result<Self, JournalError> {
        static LOADED: OnceLock<Library> = OnceLock::new();
        if let Some(library) = LOADED.get() {
            return Ok(*library);
        }
        let library = Self::load(NAME)?;
        Ok(*LOADED.get_or_init(|| library))
    }

    /// A library of this name, or at this path.
    ///
    /// # Errors
    /// As for [`Library::get`].
    pub fn load(name: &str) -> Result<Self, JournalError> {
        let loaded = Loaded::open(name)?;
        Ok(Self { functions: Functions::load(&loaded)? })
    }
}

/// Reads by the library. It stays on its thread.
#[derive(Debug)]
pub struct LibraryReader {
    handle: Handle,
    functions: Functions,
    checked_cursor: bool,
    not_send: PhantomData<*mut ()>,
}

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Functions").finish_non_exhaustive()
    }
}

impl LibraryReader {
    /// Opens a journal. A directory that does not exist is an error; an empty one is not.
    ///
    /// # Errors
    /// The library says no.
    pub fn open(library: Library, target: &Target) -> Result<Self, JournalError> {
        let functions = library.functions;
        let mut handle: Handle = null_mut();
        let (call, what, code) = open_handle(functions, target, &mut handle)?;
        checked(call, what, code)?;
        let reader = Self { handle, functions, checked_cursor: false, not_send: PhantomData };
        // SAFETY: the handle is open. Zero: fields are given whole, however long.
        let code = unsafe { (functions.set_data_threshold)(reader.handle, 0) };
        checked("sd_journal_set_data_threshold", String::new(), code)?;
        Ok(reader)
    }

    /// Gives only entries with this field (`NAME=value`) from here on; several of one name are
    /// alternatives, several names must all be met.
    ///
    /// # Errors
    /// It is not a field.
    pub fn add_match(&mut self, field: &[u8]) -> Result<(), JournalError> {
        // SAFETY: the handle is open; pointer and length are those of a slice, which is copied.
        let code =
            unsafe { (self.functions.add_match)(self.handle, field.as_ptr().cast(), field.len()) };
        checked("sd_journal_add_match", String::from_utf8_lossy(field).into_owned(), code)?;
        Ok(())
    }

    /// Forgets what [`LibraryReader::add_match`] asked for.
    pub fn flush_matches(&mut self) {
        // SAFETY: the handle is open.
        unsafe { (self.functions.flush_matches)(self.handle) }
    }

    /// Is the entry that was read last the one with this cursor?
    ///
    /// # Errors
    /// No entry was read, or the cursor is none.
    pub fn test_cursor(&self, cursor: &str) -> Result<bool, JournalError> {
        let text = c_text(cursor, "a cursor")?;
        // SAFETY: the handle is open; the text is NUL-terminated.
        let code = unsafe { (self.functions.test_cursor)(self.handle, text.as_ptr()) };
        Ok(checked("sd_journal_test_cursor", cursor.to_owned(), code)? > 0)
    }

    fn read_cursor(&mut self, entry: &mut Entry) -> Result<(), JournalError> {
        let mut text: *mut c_char = null_mut();
        // SAFETY: the handle is open; `text` is a place for one pointer.
        let code = unsafe { (self.functions.get_cursor)(self.handle, &raw mut text) };
        checked("sd_journal_get_cursor", String::new(), code)?;
        // SAFETY: after success it is a NUL-terminated text that belongs to us.
        let cursor = unsafe { CStr::from_ptr(text) };
        let begun = match cursor.to_str() {
            Ok(cursor) => entry.begin(cursor),
            Err(_) => Err(JournalError::Cursor {
                text: cursor.to_string_lossy().into_owned(),
                part: "text in UTF-8",
            }),
        };
        // SAFETY: it was allocated by the library with malloc, is ours and is not used any more.
        unsafe { libc::free(text.cast()) };
        begun
    }

    /// Once: are the cursor's number and id what the library says itself?
    fn check_cursor(&mut self, entry: &Entry) -> Result<(), JournalError> {
        self.checked_cursor = true;
        let Some(get_seqnum) = self.functions.seqnum else { return Ok(()) };
        let (mut number, mut id) = (0_u64, [0_u8; 16]);
        // SAFETY: the handle is open; both places are as large as the library writes.
        let code = unsafe { get_seqnum(self.handle, &raw mut number, &raw mut id) };
        checked("sd_journal_get_seqnum", String::new(), code)?;
        let cursor = entry.cursor();
        if (number, Id128(id)) == (cursor.seqnum, cursor.seqnum_id) {
            return Ok(());
        }
        Err(JournalError::Cursor {
            text: entry.cursor_text().to_owned(),
            part: "number that is the entry's",
        })
    }

    fn read_fields(&mut self, entry: &mut Entry) -> Result<(), JournalError> {
        // SAFETY: the handle is open and stands on an entry.
        unsafe { (self.functions.restart_data)(self.handle) };
        loop {
            let (mut data, mut len): (*const c_void, usize) = (null(), 0);
            // SAFETY: the handle is open; both places are as large as the library writes.
            let code = unsafe {
                (self.functions.enumerate_data)(self.handle, &raw mut data, &raw mut len)
            };
            if checked("sd_journal_enumerate_data", entry.cursor_text().to_owned(), code)? == 0 {
                return Ok(());
            }
            // SAFETY: after success `data` points to `len` bytes (at least `X=`), which stay valid
            // and unchanged until the next call on this handle; they are copied before that.
            let field = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) };
            entry.add(field);
        }
    }
}

impl EntryReader for LibraryReader {
    fn seek(&mut self, to: &Seek) -> Result<(), JournalError> {
        match to {
            Seek::Head => {
                // SAFETY: the handle is open.
                let code = unsafe { (self.functions.seek_head)(self.handle) };
                checked("sd_journal_seek_head", String::new(), code)?;
            }
            Seek::At(cursor) => {
                let text = c_text(cursor, "a cursor")?;
                // SAFETY: the handle is open; the text is NUL-terminated.
                let code = unsafe { (self.functions.seek_cursor)(self.handle, text.as_ptr()) };
                checked("sd_journal_seek_cursor", cursor.clone(), code)?;
            }
        }
        Ok(())
    }

    fn next(&mut self, entry: &mut Entry) -> Result<bool, JournalError> {
        // SAFETY: the handle is open.
        let code = unsafe { (self.functions.next)(self.handle) };
        if checked("sd_journal_next", String::new(), code)? == 0 {
            return Ok(false);
        }
        self.read_cursor(entry)?;
        if !self.checked_cursor {
            self.check_cursor(entry)?;
        }
        self.read_fields(entry)?;
        entry.finish();
        Ok(true)
    }

    fn wait(&mut self, timeout: Duration) -> Result<Wake, JournalError> {
        let micros = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX - 1);
        // SAFETY: the handle is open.
        let code = unsafe { (self.functions.wait)(self.handle, micros) };
        // A signal for the process is no trouble.
        if code == -libc::EINTR {
            return Ok(Wake::Nothing);
        }
        Ok(match checked("sd_journal_wait", String::new(), code)? {
            WAKE_APPEND => Wake::Appended,
            WAKE_INVALIDATE => Wake::FilesChanged,
            _ => Wake::Nothing,
        })
    }

    fn about(&self) -> String {
        NAME.into()
    }
}

impl Drop for LibraryReader {
    fn drop(&mut self) {
        // SAFETY: the handle is open, is ours, and is not used after this.
        unsafe { (self.functions.close)(self.handle) }
    }
}

fn open_handle(
    functions: Functions,
    target: &Target,
    handle: &mut Handle,
) -> Result<(&'static str, String, c_int), JournalError> {
    let place: *mut Handle = handle;
    Ok(match target {
        Target::Local => {
            // SAFETY: `place` is a place for one pointer.
            let code = unsafe { (functions.open)(place, LOCAL_ONLY) };
            ("sd_journal_open", String::new(), code)
        }
        Target::Namespace(name) => {
            let text = c_text(name, "a namespace's name")?;
            // SAFETY: as above; the text is NUL-terminated and copied by the library.
            let code = unsafe { (functions.open_namespace)(place, text.as_ptr(), LOCAL_ONLY) };
            ("sd_journal_open_namespace", name.clone(), code)
        }
        Target::Directory(path) => {
            let text = c_path(path)?;
            // SAFETY: as above.
            let code = unsafe { (functions.open_directory)(place, text.as_ptr(), 0) };
            ("sd_journal_open_directory", path.display().to_string(), code)
        }
        Target::Files(paths) => {
            let texts = paths.iter().map(|path| c_path(path)).collect::<Result<Vec<_>, _>>()?;
            let mut list: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
            list.push(null());
            // SAFETY: `place` as above; the list ends with null and its texts live until the end of
            // this block; the library opens the files and keeps no pointer into the list.
            let code = unsafe { (functions.open_files)(place, list.as_mut_ptr(), 0) };
            let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            ("sd_journal_open_files", names.join(", "), code)
        }
    })
}

fn c_text(text: &str, what: &'static str) -> Result<CString, JournalError> {
    CString::new(text).map_err(|_| JournalError::Nul { what })
}

fn c_path(path: &Path) -> Result<CString, JournalError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| JournalError::Nul { what: "a path" })
}

/// The library gives negative error numbers.
fn checked(call: &'static str, what: String, code: c_int) -> Result<c_int, JournalError> {
    if code >= 0 {
        return Ok(code);
    }
    let error = std::io::Error::from_raw_os_error(code.saturating_neg());
    Err(JournalError::Call { call, what, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_says_which_and_what_helps() {
        let error = Library::load("libsystemd-that-is-not-there.so.9").unwrap_err().to_string();
        assert!(error.contains("libsystemd-that-is-not-there.so.9"), "{error}");
        assert!(error.contains("libsystemd0"), "{error}");
    }

    #[test]
    fn another_library_is_refused_by_the_first_function_that_it_lacks() {
        let error = Library::load("libc.so.6").unwrap_err().to_string();
        assert!(error.contains("sd_journal_open"), "{error}");
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error_with_its_name() {
        let Ok(library) = Library::get() else {
            println!("skipped: no libsystemd.so.0 here");
            return;
        };
        let target = Target::Directory("/nowhere/journal".into());
        let error = LibraryReader::open(library, &target).unwrap_err().to_string();
        assert!(error.contains("/nowhere/journal"), "{error}");
    }
}
