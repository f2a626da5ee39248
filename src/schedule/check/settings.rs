//! Where records are kept, and where metrics are served.

use super::Planner;
use super::report::Spot;
use crate::schedule::plan::RecordsSpec;

/// Seconds that closed record files are kept where `records.keep` is absent.
const KEEP: u64 = 400 * 86_400;
/// Bytes at which a record file is closed where `records.maxSize` is absent.
const MAX_SIZE: u64 = 64 << 20;

impl Planner<'_> {
    pub(super) fn records(&mut self, spot: &Spot<'_>, file: crate::schedule::file::RecordsFile) -> RecordsSpec {
        let directory = file.directory.and_then(|path| self.own_path(spot, &["records".into(), "directory".into()], path));
        let keep = file.keep.map_or(KEEP, |keep| keep.0);
        if keep == 0 {
            self.report.error(spot, &["records".into(), "keep".into()], "records cannot be kept for no time: write such as 400d");
        }
        let max_size = file.max_size.map_or(MAX_SIZE, |size| size.0);
        if max_size < 64 << 10 {
            self.report.error(spot, &["records".into(), "maxSize".into()], "files of records need some room: write 64KiB or more");
        }
        let signing_key = file.signing_key.map(|mut key| {
            self.refer(spot, &["records".into(), "signingKey".into(), "file".into()], &mut key.file);
            key.file
        });
        RecordsSpec { directory, keep, max_size, signing_key }
    }

    pub(super) fn metrics(&mut self, spot: &Spot<'_>, listen: Option<&str>) -> Option<std::net::SocketAddr> {
        let text = listen?;
        let address = text.parse().ok();
        if address.is_none() {
            let shown = crate::schedule::measure::shown(text);
            self.report.error(
                spot,
                &["metrics".into(), "listen".into()],
                &format!("{shown} is no ADDRESS:PORT: write such as 127.0.0.1:9467"),
            );
        }
        address
    }
}
