// A row or key that was read and is not there went by what the stream says behind the read: a removal,
// or a change that emptied the key.
extension RowBuffer {
    /// Rows and keys that were found missing went by a change that emptied them, once the stream is
    /// past the place where a removal of theirs would stand.
    mutating func resolveMissing(processed: Int64) {
        guard !missing.isEmpty, processed >= missingUntil else { return }
        let items = missing
        missing = []
        for item in items {
            resolveMissing(item)
            tables[item.table].keys[item.key].flags.remove(.others)
        }
    }

    /// Forgets what went before it was read, once the stream is where it was read.
    mutating func forgetGoneBeforeRead(_ offset: Int64) {
        for table in tables.indices where !tables[table].goneBeforeRead.isEmpty {
            let rows = tables[table].rows
            tables[table].goneBeforeRead = tables[table].goneBeforeRead.filter {
                rows[Int($0)].readOffset > offset
            }
        }
    }

    mutating func resolveMissing(_ item: Opaque) {
        if let row = item.row {
            guard tables[item.table].rows[row].shape == .missing,
                Int(tables[item.table].rows[row].key) == item.key
            else { return }
            let flags = tables[item.table].rows[row].flags
            let mapping = tables[item.table].mapping
            // An HDEL empties a hash, whether the application sent it or the last field's deadline.
            let mayHide =
                mapping.type == .hash && mapping.needsCause && mayFieldsExpire
                && !flags.contains(.others)
            // What was to be read at a restart may have been emptied.
            if flags.contains(.swept), !mayHide || !flags.contains(.untyped) {
                return sweepOut(item.table, row)
            }
            if isReplacedUnseen(item.table, row) { return leaveUnseen(item.table, row) }
            // It went before what a server that is no more said of it.
            let wasGone = tables[item.table].goneUnread.remove(Int32(row)) != nil
            remove(item.table, row, mayHide || wasGone ? nil : .deleted)
        } else if tables[item.table].keys[item.key].flags.contains(.missing) {
            let before = tables[item.table].keys[item.key].flags
            if isReplacedUnseen(item.table, key: item.key) {
                // It was trimmed before its name was another's. No pass is to come that would count it.
                if !tables[item.table].readsUnknown, before.contains(.looked) {
                    incomplete.insert(item.table)
                }
                leaveOpaque(item.table, key: item.key)
                return tables[item.table].keys[item.key].flags.subtract(Key.Flags.ofRead)
            }
            let offset = tables[item.table].keys[item.key].readOffset
            let isLooked = !before.isDisjoint(with: [.looked, .baseline])
            clear(item.table, item.key, at: offset, .deleted, isEmptied: isLooked)
            if isLooked { sweepLooked(item.table, item.key, before: before) }
        }
    }

    /// Whether a change of a member at an offset concerns the key. If the key was found missing
    /// before that and no removal came, a change had emptied it.
    @inline(__always)
    mutating func begin(_ table: Int, key: Int, at offset: Int64) -> Bool {
        guard isCurrent(table, key: key, at: offset) else {
            noteSkipped(table, key)
            return false
        }
        if tables[table].keys[key].flags.contains(.missing) {
            resolveMissing(Opaque(table: table, key: key, row: nil))
        }
        return true
    }
}
