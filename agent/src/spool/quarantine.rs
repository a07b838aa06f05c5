//! Putting damaged stores aside, and keeping only the newest few.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Moves the folder `store` to `<dir>/quarantine/<utc>-<n>` and removes the oldest beyond `keep`.
pub(crate) fn put_aside(
    dir: &Path,
    store: &Path,
    unix_ms: u64,
    keep: usize,
) -> io::Result<PathBuf> {
    let home = dir.join("quarantine");
    fs::create_dir_all(&home)?;
    let stamp = utc_stamp(unix_ms / 1000);
    let mut n = 0_u32;
    let place = loop {
        let place = home.join(format!("{stamp}-{n:03}"));
        if !place.try_exists()? {
            break place;
        }
        n += 1;
    };
    fs::rename(store, &place)?;
    sync_dir(&home)?;
    sync_dir(dir)?;
    forget_oldest(&home, keep)?;
    Ok(place)
}

/// How many are kept at the moment.
pub(crate) fn count(dir: &Path) -> usize {
    fs::read_dir(dir.join("quarantine")).map_or(0, |entries| entries.filter_map(Result::ok).count())
}

fn forget_oldest(home: &Path, keep: usize) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(home)? {
        names.push(entry?.path());
    }
    names.sort();
    for old in names.iter().take(names.len().saturating_sub(keep.max(1))) {
        fs::remove_dir_all(old)?;
    }
    Ok(())
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// `20261121T115900Z`; sorts by time.
fn utc_stamp(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    // Days to a civil date, with years that begin in March (so that a leap day is the last of its year).
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_name_the_right_day() {
        for (unix_s, stamp) in [
            (0, "19700101T000000Z"),
            (951_782_400, "20000229T000000Z"),
            (1_709_251_199, "20240229T235959Z"),
            (1_735_689_599, "20241231T235959Z"),
            (1_795_262_340, "20261121T115900Z"),
        ] {
            assert_eq!(utc_stamp(unix_s), stamp);
        }
    }

    #[test]
    fn the_oldest_go_first_and_the_newest_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut places = Vec::new();
        for n in 0..7_u64 {
            let store = dir.path().join("store-1");
            fs::create_dir(&store).unwrap();
            fs::write(store.join("db"), n.to_string()).unwrap();
            places.push(put_aside(dir.path(), &store, n / 2 * 1000, 4).unwrap());
        }
        assert_eq!(count(dir.path()), 4);
        for (n, place) in places.iter().enumerate() {
            assert_eq!(place.try_exists().unwrap(), n >= 3, "{}", place.display());
        }
    }
}
