//! Releasing: the receipts that a camera is due, what it says it has, and the key list under which receipts
//! count. A camera's bytes are its own: nothing here can make it erase but a receipt, carried unchanged.

use bytes::Bytes;
use protocol::ids::{CameraId, Digest, Time};
use protocol::keylist::KeyList;
use protocol::receipt::Receipt;
use protocol::suite::sha256;

use crate::error::{SpoolError, is_unreadable};
use crate::limits;
use crate::rows::{self, ReceiptRow, tag};
use crate::spool::{Skip, Spool};

/// A receipt for a camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueReceipt {
    /// The recording's number on that camera.
    pub number: u64,
    /// The receipt's digest.
    pub digest: Digest,
    /// Its signed bytes.
    pub bytes: Bytes,
}

/// What a key list changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyListChange {
    /// It is the one known.
    Same,
    /// It is newer.
    Newer {
        /// Segments that have too few receipts now.
        back: usize,
    },
}

impl Spool {
    /// The receipts that a camera is due, but for those in `skip` (by the receipt's digest). One that the logbook no
    /// longer holds whole is none: what stood on such goes back, with an alarm, and the sites are asked again.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn receipts_due(
        &mut self,
        camera: &CameraId,
        limit: usize,
        skip: &Skip,
    ) -> Result<Vec<DueReceipt>, SpoolError> {
        let Some(number) = self.books.names.camera(camera).filter(|_| !self.unsettled) else {
            return Ok(Vec::new());
        };
        let prefix = rows::key(tag::DUE, &[&number.to_be_bytes()]);
        let (mut due, mut damaged) = (Vec::new(), None::<Digest>);
        for item in self
            .books
            .ledger
            .scan(&prefix, None)
            .take(limits::SKIPPED_ROWS)
        {
            if due.len() >= limit {
                break;
            }
            let (key, _) = item?;
            let Some(receipt) = key.last_chunk().map(|n| u32::from_be_bytes(*n)) else {
                continue;
            };
            let Some(row) = self
                .books
                .ledger
                .get::<ReceiptRow>(&rows::numbered(tag::RECEIPT, receipt))?
            else {
                continue;
            };
            if skip.contains(&row.digest) {
                continue;
            }
            match self.receipt_bytes(&row)? {
                Some(bytes) => due.push(DueReceipt {
                    number: row.number,
                    digest: row.digest,
                    bytes,
                }),
                None => damaged = Some(row.digest),
            }
        }
        if let Some(receipt) = damaged {
            let back = self.weigh_all()?;
            let what = format!("receipt {receipt} in it is damaged; {back} segments went back");
            self.raise("logbook_damaged", "logbook", &what, self.opened);
        }
        Ok(due)
    }

    /// A receipt's bytes from the logbook; none where they are damaged.
    pub(crate) fn receipt_bytes(&self, row: &ReceiptRow) -> Result<Option<Bytes>, SpoolError> {
        let length = usize::try_from(row.length).unwrap_or(usize::MAX);
        match self.books.logbook.bytes_at(row.offset, length) {
            Ok(bytes) if sha256(&bytes) == row.digest => Ok(Some(bytes.into())),
            Ok(_) | Err(SpoolError::Contradiction(_)) => Ok(None),
            Err(SpoolError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::UnexpectedEof || is_unreadable(&source) =>
            {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// A camera says that it has, durably, the receipts for these. Counts from the next commit on.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn released(
        &mut self,
        camera: &CameraId,
        number: u64,
        digests: &[Digest],
        _now: Time,
    ) -> Result<(), SpoolError> {
        if let Some(camera) = self.books.names.camera(camera) {
            self.group.released.push((camera, number, digests.to_vec()));
        }
        Ok(())
    }

    /// The key list in force.
    #[must_use]
    pub fn key_list(&self) -> &KeyList {
        &self.books.keys
    }

    /// Takes a newer key list. What stands on receipts that do not count under it goes back. Durable on return.
    ///
    /// # Errors
    /// [`SpoolError::OlderKeyList`], and as [`Spool::commit`].
    pub fn set_key_list(&mut self, keys: &KeyList, now: Time) -> Result<KeyListChange, SpoolError> {
        let (known, offered) = (self.books.keys.number(), keys.number());
        if offered < known {
            return Err(SpoolError::OlderKeyList { offered, known });
        }
        if offered == known {
            return Ok(KeyListChange::Same);
        }
        // What was told before is judged before, so that only the list can be the cause of what follows.
        self.barrier(now)?;
        // The file says under which list the rows were judged: it gets its name when they are durable.
        let written = self.folder.write_beside("key-list", keys.bytes())?;
        self.group.follows = Some((written, self.folder.path("key-list")));
        self.tell_what_stood(keys)?;
        self.books.keys = keys.clone();
        let back = self.weigh_all()?;
        self.retry_refused(None)?;
        self.group.notes.push(format!(
            "key list {offered} follows {known}: {back} segments go back"
        ));
        self.barrier(now)?;
        Ok(KeyListChange::Newer { back })
    }

    /// Judges every receipt and weighs every recording under the key list in force.
    pub(crate) fn weigh_all(&mut self) -> Result<usize, SpoolError> {
        let mut void = std::collections::HashSet::new();
        let mut receipts = Vec::new();
        for item in self.books.ledger.scan(&[tag::RECEIPT], None) {
            let (key, value) = item?;
            let row: ReceiptRow = minicbor::decode(&value)
                .map_err(|e| SpoolError::Contradiction(format!("a receipt: {e}")))?;
            receipts.extend(rows::number_at_start(&key).map(|number| (number, row)));
        }
        for (number, row) in receipts {
            let counts = self
                .receipt_bytes(&row)?
                .is_some_and(|bytes| Receipt::verify(bytes, &self.books.keys).is_ok());
            if !counts {
                void.insert(number);
            }
        }
        let mut recordings = Vec::new();
        for item in self.books.ledger.scan(&[tag::RECORDING], None) {
            let (key, _) = item?;
            let number = key.last_chunk().map(|n| u64::from_be_bytes(*n));
            recordings.extend(rows::number_at_start(&key).zip(number));
        }
        let mut back = 0;
        for (camera, number) in recordings {
            let Some(mut rec) = self.books.recording(camera, number)? else {
                continue;
            };
            for digest in self.books.segments_of(camera, number)? {
                let row = self.books.segment(&digest)?;
                let loses = row.is_some_and(|r| r.receipts.iter().any(|(n, _)| void.contains(n)));
                if loses {
                    self.books.change_receipts(&digest, &mut rec, &void)?;
                }
                back += usize::from(self.books.weigh(&digest, &mut rec)?);
            }
            // How many sites have to have a manifest depends on the list, too; and a void store may lack it.
            for manifest in self.books.manifests_of(camera, number)? {
                self.books.change_manifest(&manifest, &rec.row, |row| {
                    if !void.is_empty() {
                        row.answered.clear();
                        let before = row.receipts.len();
                        row.receipts.retain(|(number, _)| !void.contains(number));
                        row.released &= row.receipts.len() == before;
                    }
                })?;
            }
            self.books.save(&rec);
        }
        for number in void {
            let key = rows::numbered(tag::RECEIPT, number);
            if let Some(row) = self.books.ledger.get::<ReceiptRow>(&key)? {
                self.books
                    .ledger
                    .delete(rows::of(tag::RECEIPT_OF, &row.digest));
                self.books.ledger.delete(key);
            }
        }
        Ok(back)
    }
}
