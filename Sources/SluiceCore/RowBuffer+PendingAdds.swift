// A counter that outlived its key has more than Redis has. What can't be added to it stands only in its
// dead letter, and is added with what comes after it, or when the letter is tried again.
extension RowBuffer {
    /// Notes what a row's dead letter holds that is to be added to it.
    mutating func notePendingAdd(_ table: Int, _ row: Int, _ delta: Int64) {
        let isPending = delta != 0 && tables[table].mapping.isCounter
        guard isPending || !tables[table].pendingAdds.isEmpty else { return }
        tables[table].pendingAdds[Int32(row)] = isPending ? delta : nil
        if tables[table].rows[row].flags.contains(.spared) {
            tables[table].spared[Int32(row), default: Spared()].pending = isPending ? delta : 0
        }
    }

    /// Forgets what is to be added to rows whose letters ended with a commit.
    mutating func endPendingAdds() {
        for table in tables.indices where !tables[table].pendingAdds.isEmpty {
            for slot in Array(tables[table].pendingAdds.keys)
            where !tables[table].rows[Int(slot)].flags.contains(.setAside) {
                tables[table].pendingAdds[slot] = nil
                tables[table].spared[slot]?.pending = 0
            }
        }
    }

    /// Has a row read to which changes were folded while the database refused it.
    mutating func readFolded(_ table: Int, _ row: Int) {
        let cell = tables[table].width > 0 ? tables[table].cells[row * tables[table].width] : .null
        makeOpaque(table, row, isOwn: false)
        switch cell {
        case .add(let delta):
            spare(table, row)
            noteSpared(table, row, delta)
        // A deadline says nothing of the value.
        case .unchanged: spare(table, row)
        default: break
        }
    }
}
