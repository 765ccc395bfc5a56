// What is known of rows when the stream goes on in another history.
extension RowBuffer {
    /// Forgets what is known of all rows, because another history begins or databases were swapped.
    ///
    /// Rows that were to be read are forgotten too: the baseline reads them.
    mutating func forgetKnowledge() {
        for table in tables.indices {
            tables[table].goneBeforeRead = []
            tables[table].goneUnread = []
            for key in tables[table].keys.indices {
                if tables[table].keys[key].flags.contains(.free) { continue }
                leaveOpaque(table, key: key)
                tables[table].keys[key].flags.subtract(Key.Flags.ofRead.union(.tentative))
                tables[table].keys[key].readOffset = .min
                tables[table].keys[key].readUntil = .min
                forEachRow(table, key) { buffer, row in
                    buffer.leaveOpaque(table, row)
                    buffer.tables[table].fill(row, with: .unchanged)
                    buffer.tables[table].rows[row].shape = .untouched
                    buffer.tables[table].rows[row].flags
                        .subtract([.dirty, .gone, .marked, .spared, .swept])
                    buffer.tables[table].forgetKept(row)
                    buffer.tables[table].rows[row].readOffset = .min
                }
            }
        }
        readOffsetMax = .min
        looseOffsetMax = .min
        missing = []
        missingUntil = .min
    }

    /// Forgets values that were read beyond a point of the stream, and has them read again: the
    /// server that this point was read from may be gone, and its successor never have had them.
    mutating func rereadBeyond(_ offset: Int64) {
        restartScans()
        rereadMissing()
        for table in tables.indices {
            for key in tables[table].keys.indices
            where tables[table].keys[key].readUntil > offset {
                tables[table].keys[key].readOffset = .min
                tables[table].keys[key].readUntil = .min
                makeKeyOpaque(table, key, .perhaps)
            }
            for row in tables[table].rows.indices
            where tables[table].rows[row].readOffset > offset {
                readOnceMore(table, row)
                if tables[table].goneBeforeRead.remove(Int32(row)) != nil {
                    tables[table].goneUnread.insert(Int32(row))
                }
            }
        }
        readOffsetMax = .min
        looseOffsetMax = .min
    }

    /// Has a row read again that was read beyond a point of the stream: what came to it before goes on top,
    /// and why it is to be read stays known.
    mutating func readOnceMore(_ table: Int, _ row: Int) {
        let flags = tables[table].rows[row].flags
        let spared = tables[table].spared[Int32(row)]
        let waits = [.opaque, .missing].contains(tables[table].rows[row].shape)
        tables[table].rows[row].readOffset = .min
        makeOpaque(table, row, isOwn: false)
        if flags.contains(.spared) {
            tables[table].rows[row].flags.insert(.spared)
            tables[table].spared[Int32(row)] = spared
        }
        guard waits else { return }
        tables[table].rows[row].flags
            .formUnion(flags.intersection([.own, .stored, .untyped, .swept]))
    }

    // The removal that was waited for may not be in the new history.
    private mutating func rereadMissing() {
        for item in missing {
            if let row = item.row {
                guard tables[item.table].rows[row].shape == .missing,
                    Int(tables[item.table].rows[row].key) == item.key
                else { continue }
                readOnceMore(item.table, row)
            } else if tables[item.table].keys[item.key].flags.contains(.missing) {
                tables[item.table].keys[item.key].readOffset = .min
                tables[item.table].keys[item.key].readUntil = .min
                let flags = tables[item.table].keys[item.key].flags
                let change: KeyChange =
                    flags.contains(.baseline) ? .none : flags.contains(.looked) ? .perhaps : .whole
                makeKeyOpaque(item.table, item.key, change)
                tables[item.table].keys[item.key].flags
                    .formUnion(flags.intersection(Key.Flags.ofRead))
            }
        }
        missing = []
        missingUntil = .min
    }
}
