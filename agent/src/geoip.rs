//! Where addresses are, from MaxMind DB files of the operator's.
//!
//! A file is read whole (a city database takes as much memory as disk) and looked at again every
//! [`LOOK_EVERY`]: one that has been replaced is read anew. A new file that cannot be read is said
//! once, and the old one goes on answering. No database is shipped and none is fetched.
//!
//! Whatever a database says, the event's id does not depend on it: records that are read again have
//! the same ids under another database.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context;
use custody_config::agent::GeoipConfig;
use custody_event::Clock;
use custody_parsers::{Atlas, Location};
use maxminddb::{Reader, geoip2};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A larger file is refused: the largest database that is sold has under 1 GiB.
const MAX_FILE_BYTES: u64 = 2 << 30;

/// The databases of a configuration.
pub struct Geoip {
    city: Option<Database>,
    asn: Option<Database>,
    clock: Arc<dyn Clock>,
    /// When the files were looked at last.
    looked: Mutex<Duration>,
}

impl std::fmt::Debug for Geoip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Geoip").finish_non_exhaustive()
    }
}

/// A file that may be replaced, and what was read of it.
struct Database {
    path: PathBuf,
    read: RwLock<Arc<Reader<Vec<u8>>>>,
    /// Inode, size and time of change of the file that was looked at last.
    seen: Mutex<Seen>,
}

type Seen = (u64, u64, i64, i64);

fn seen(path: &Path) -> std::io::Result<Seen> {
    let meta = std::fs::metadata(path)?;
    Ok((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}

fn read(path: &Path) -> anyhow::Result<Reader<Vec<u8>>> {
    let shown = || format!("cannot read the database {}", path.display());
    let (_, size, ..) = seen(path).with_context(shown)?;
    anyhow::ensure!(size <= MAX_FILE_BYTES, "{} is larger than 2 GiB", path.display());
    let bytes = std::fs::read(path).with_context(shown)?;
    Reader::from_source(bytes).with_context(shown)
}

impl Database {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let seen = seen(path).with_context(|| format!("cannot read {}", path.display()))?;
        let read = RwLock::new(Arc::new(read(path)?));
        Ok(Self { path: path.to_owned(), read, seen: Mutex::new(seen) })
    }

    /// Reads the file anew if it is another.
    fn look(&self) {
        let Ok(now) = seen(&self.path) else { return };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return;
        }
        *seen = now;
        match read(&self.path) {
            Ok(fresh) => {
                *self.read.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
                log::info!(path:% = self.path.display(); "a new database of addresses is used");
            }
            Err(error) => log::warn!("{error:#}; the one that was read before goes on"),
        }
    }

    fn reader(&self) -> Arc<Reader<Vec<u8>>> {
        Arc::clone(&self.read.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Geoip {
    /// The databases that are configured, if any are.
    ///
    /// # Errors
    /// One cannot be read, or is none.
    pub fn open(config: &GeoipConfig, clock: &Arc<dyn Clock>) -> anyhow::Result<Option<Arc<Self>>> {
        let open = |file: &Option<custody_config::Located<PathBuf>>| {
            file.as_ref().map(|file| Database::open(file.get())).transpose()
        };
        let (city, asn) = (open(&config.city_file)?, open(&config.asn_file)?);
        if city.is_none() && asn.is_none() {
            return Ok(None);
        }
        let looked = Mutex::new(clock.monotonic());
        Ok(Some(Arc::new(Self { city, asn, clock: Arc::clone(clock), looked })))
    }

    fn look(&self) {
        let now = self.clock.monotonic();
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if now.saturating_sub(*looked) < LOOK_EVERY {
                return;
            }
            *looked = now;
        }
        [&self.city, &self.asn].into_iter().flatten().for_each(Database::look);
    }
}

/// A record that is there and can be read; a damaged one is none.
fn decoded<'r, T: serde::Deserialize<'r>>(
    reader: &'r Reader<Vec<u8>>,
    address: IpAddr,
) -> Option<T> {
    reader.lookup(address).ok()?.decode().ok()?
}

impl Atlas for Geoip {
    fn find(&self, address: IpAddr) -> Option<Location> {
        self.look();
        let mut location = Location::default();
        if let Some(reader) = self.city.as_ref().map(Database::reader)
            && let Some(city) = decoded::<geoip2::City<'_>>(&reader, address)
        {
            let text = |text: Option<&str>| text.map(str::to_owned);
            location.country = text(city.country.iso_code);
            location.region = text(city.subdivisions.first().and_then(|at| at.names.english));
            location.city = text(city.city.names.english);
        }
        if let Some(reader) = self.asn.as_ref().map(Database::reader)
            && let Some(asn) = decoded::<geoip2::Asn<'_>>(&reader, address)
        {
            location.asn = asn.autonomous_system_number.map(i64::from);
            location.organisation = asn.autonomous_system_organization.map(str::to_owned);
        }
        (location != Location::default()).then_some(location)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_config::{AgentConfig, AgentOverrides, Env};
    use custody_event::Timestamp;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Debug, Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp::from_micros(0)
        }

        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }
    }

    fn text(text: &str) -> Vec<u8> {
        let size = match u8::try_from(text.len()).unwrap() {
            short @ 0..29 => vec![0x40 | short],
            long => vec![0x40 | 29, long - 29],
        };
        [&size, text.as_bytes()].concat()
    }

    fn map(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut out = vec![0xe0 | u8::try_from(pairs.len()).unwrap()];
        for (key, value) in pairs {
            out.extend(text(key));
            out.extend(value);
        }
        out
    }

    fn number(kind: u8, value: u32) -> Vec<u8> {
        let bytes = value.to_be_bytes();
        let bytes = if kind == 5 { &bytes[2..] } else { &bytes[..] };
        [&[(kind << 5) | u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    /// The smallest database: one node; addresses whose first bit is 1 have the record.
    /// <https://maxmind.github.io/MaxMind-DB/>
    fn database(kind: &str, record: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 0, 1, 0, 0, 17];
        out.extend([0; 16]);
        out.extend(record);
        out.extend(b"\xab\xcd\xefMaxMind.com");
        let build = [&[0x08, 0x02][..], &1_700_000_000_u64.to_be_bytes()].concat();
        out.extend(map(&[
            ("node_count", number(6, 1)),
            ("record_size", number(5, 24)),
            ("ip_version", number(5, 4)),
            ("database_type", text(kind)),
            ("languages", vec![0x00, 0x04]),
            ("binary_format_major_version", number(5, 2)),
            ("binary_format_minor_version", number(5, 0)),
            ("build_epoch", build),
            ("description", vec![0xe0]),
        ]));
        out
    }

    fn city(name: &str) -> Vec<u8> {
        let names = |name: &str| map(&[("names", map(&[("en", text(name))]))]);
        let record = map(&[
            ("city", names(name)),
            ("country", map(&[("iso_code", text("DE"))])),
            ("subdivisions", [&[0x01, 0x04][..], &names("Bavaria")].concat()),
        ]);
        database("GeoIP2-City", &record)
    }

    fn config(folder: &Path) -> GeoipConfig {
        let folder = folder.display();
        let yaml = format!(
            "sources: [{{ id: a, type: file, paths: [/x] }}]\noutputs: [{{ id: o, type: custody, endpoints: ['http://127.0.0.1:1'] }}]\ngeoip: {{ city_file: {folder}/city.mmdb, asn_file: {folder}/asn.mmdb }}\n"
        );
        AgentConfig::from_text(
            Path::new("a.yaml"),
            &yaml,
            &AgentOverrides::default(),
            &Env::default(),
        )
        .unwrap()
        .value
        .geoip
    }

    #[test]
    fn addresses_are_found_and_a_file_that_is_replaced_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("city.mmdb");
        std::fs::write(&file, city("Munich")).unwrap();
        let asn = map(&[
            ("autonomous_system_number", number(6, 64_500)),
            ("autonomous_system_organization", text("Example Net")),
        ]);
        std::fs::write(folder.path().join("asn.mmdb"), database("GeoLite2-ASN", &asn)).unwrap();
        let hand = Arc::new(Hand::default());
        let clock: Arc<dyn Clock> = Arc::clone(&hand) as Arc<dyn Clock>;
        let geoip = Geoip::open(&config(folder.path()), &clock).unwrap().unwrap();
        let at = |address: &str| geoip.find(address.parse().unwrap());
        let found = at("203.0.113.9").unwrap();
        assert_eq!(found.country.as_deref(), Some("DE"));
        assert_eq!(found.region.as_deref(), Some("Bavaria"));
        assert_eq!(found.city.as_deref(), Some("Munich"));
        assert_eq!((found.asn, found.organisation.as_deref()), (Some(64_500), Some("Example Net")));
        assert_eq!(at("10.0.0.1"), None);
        assert_eq!(at("2001:db8::1"), None, "the database knows IPv4 alone");
        // Replaced by rename, as its updater does; a broken one after it changes nothing.
        let replace = |bytes: &[u8]| {
            let next = folder.path().join("next");
            std::fs::write(&next, bytes).unwrap();
            std::fs::rename(&next, &file).unwrap();
            hand.0.fetch_add(60, Ordering::Relaxed);
        };
        replace(&city("Ulm"));
        assert_eq!(at("203.0.113.9").unwrap().city.as_deref(), Some("Ulm"));
        replace(b"no database");
        assert_eq!(at("203.0.113.9").unwrap().city.as_deref(), Some("Ulm"));
    }

    #[test]
    fn a_file_that_is_no_database_keeps_the_agent_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("city.mmdb"), b"nothing").unwrap();
        let clock: Arc<dyn Clock> = Arc::new(Hand::default());
        let error = Geoip::open(&config(folder.path()), &clock).unwrap_err();
        assert!(format!("{error:#}").contains("city.mmdb"), "{error:#}");
        assert!(Geoip::open(&GeoipConfig::default(), &clock).unwrap().is_none());
    }
}
