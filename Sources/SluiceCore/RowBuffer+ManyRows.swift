extension RowBuffer {
    /// Visits the rows of a key; the visitor may free the row that it is given.
    mutating func forEachRow(
        _ table: Int, _ key: Int, _ visit: (inout RowBuffer, Int) -> Void,
    ) {
        var row = Int(tables[table].keys[key].first)
        while row >= 0 {
            let next = Int(tables[table].rows[row].next)
            visit(&self, row)
            row = next
        }
    }

    /// Forgets the rows of a key that all go or will be read; those with a dead letter become absent.
    ///
    /// - Parameters:
    ///   - policy: What becomes of the rows.
    ///   - change: Why they will be read, or nil when they go.
    mutating func dropRows(
        _ table: Int, _ key: Int, at offset: Int64, _ policy: RemovalPolicy,
        _ change: KeyChange? = nil,
    ) {
        let isLooked = change == .perhaps || change == .part
        let sparesLetters =
            change != nil && (tables[table].isShared || isLooked || policy == .keep)
        forEachRow(table, key) { buffer, row in
            let shape = buffer.tables[table].rows[row].shape
            if isLooked, buffer.tables[table].rows[row].flags.contains(.gone) { return }
            // What it had before goes with its key.
            if change == nil, buffer.canForgetRead(table, row) { buffer.forgetRead(table, row) }
            guard offset > buffer.tables[table].rows[row].readOffset || shape == .missing else {
                if change == nil { buffer.unspare(table, row) }
                // It was written already or will be, and the clear must not take it.
                return buffer.rewrite(table, row)
            }
            if sparesLetters, buffer.spareLetter(table, row) { return }
            // Of a row that nothing was heard of since a gap nobody knows whose it is.
            if isLooked, buffer.isExact, buffer.tables[table].readsUnknown, shape == .untouched {
                return
            }
            if shape == .missing { buffer.tables[table].rows[row].readOffset = .min }
            buffer.leaveOpaque(table, row)
            buffer.tables[table].rows[row].shape = .absent
            buffer.tables[table].fill(row, with: .null)
            buffer.tables[table].rows[row].flags.subtract([.gone, .marked, .spared, .swept])
            buffer.tables[table].rows[row].misfit = nil
            buffer.tables[table].forgetKept(row)
            if buffer.tables[table].rows[row].flags.contains(.setAside) {
                // The clear takes the row, or marks it; its letter ends.
                if policy != .delete {
                    buffer.tables[table].fill(row, with: .unchanged)
                    buffer.tables[table].rows[row].shape = .untouched
                }
                buffer.touch(table, row)
            } else {
                // The clear takes it; a row with nothing to write is skipped at the cut.
                buffer.tables[table].rows[row].flags.remove(.dirty)
            }
        }
    }
}
