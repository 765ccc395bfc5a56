// DEL does not say what a key was, and a table shares names with others, or with keys that are there by
// mistake. So a row that nothing has put since it was last known goes with its name only if the database
// does not remember that it outlived its own key; and a row that the buffer knows to be gone stays as it
// is, whatever else has the name and goes.
extension RowBuffer {
    /// Whether what removes a key is to be heard for a row: else its own key was gone already, and this
    /// one was another's.
    func isThere(_ table: Int, _ row: Int) -> Bool {
        let state = tables[table].rows[row]
        let isLeaving = state.shape == .untouched && state.flags.contains(.swept)
        return !isLeaving && state.shape != .absent && !state.flags.contains(.gone)
    }

    /// Whether what removes a key is to be heard for its rows: see ``isThere(_:_:)``.
    func isThere(_ table: Int, key: Int) -> Bool {
        let isGone =
            tables[table].keptTable != nil || tables[table].keptKeys[Int32(key)] != nil
            || tables[table].keys[key].flags.contains(.cleared)
        return !isGone || isPut(table, key)
    }

    /// Whether a row may have outlived an earlier key of its name, and not be the one that is removed.
    func mayHaveOutlived(_ table: Int, _ row: Int) -> Bool {
        let state = tables[table].rows[row]
        let key = Int(state.key)
        guard tables[table].mapping.canKeep, !state.flags.contains(.setAside), state.misfit == nil,
            !tables[table].isWiped, !tables[table].keys[key].flags.contains(.cleared),
            // One that came back, or was read after the rest was gone.
            tables[table].kept[Int32(row)] == nil
        else { return false }
        // What removes a member says that the key is its own.
        guard tables[table].mapping.isOneRowPerKey || state.flags.contains(.swept) else {
            return false
        }
        return switch state.shape {
        case .untouched, .update: true
        case .opaque, .missing: tables[table].isShared
        case .value, .merge, .absent: false
        }
    }

    /// Whether the buffer knows that a key was of its table's type after it was last gone.
    func isPut(_ table: Int, _ key: Int) -> Bool {
        if isUnread(table, key), !tables[table].isShared { return true }
        var row = Int(tables[table].keys[key].first)
        while row >= 0 {
            let state = tables[table].rows[row]
            let isPut =
                switch state.shape {
                case .value, .merge: true
                case .opaque: !state.flags.contains(.swept)
                case .untouched, .update, .absent, .missing: state.flags.contains(.setAside)
                }
            if isPut, !state.flags.contains(.gone) { return true }
            row = Int(state.next)
        }
        return false
    }

    /// Has the rows of a key that are to be cleared go only if they did not outlive an earlier key.
    mutating func sweepCleared(_ table: Int, _ key: Int, before: Key.Flags) {
        let wasCleared = before.contains(.cleared) && !before.contains(.swept)
        guard tables[table].mapping.canKeep, !tables[table].isWiped, !wasCleared else { return }
        tables[table].keys[key].flags.insert(.swept)
        tables[table].keys[key].flags.remove(.unknown)
    }

    // MARK: Reads

    /// How a row was kept since the last cut to which an unknown key came: whether it is the row's own
    /// that came back, the read will say.
    mutating func keptUntilRead(_ table: Int, _ row: Int) -> Kept? {
        let state = tables[table].rows[row]
        guard tables[table].isShared, state.flags.contains(.gone),
            let kept = tables[table].kept[Int32(row)]
        else { return nil }
        if tables[table].mapping.isOneRowPerKey, state.shape == .value || state.shape == .merge {
            tables[table].forgotten.insert(Int32(row))
        }
        return kept
    }

    /// Notes that members of a key which were kept since the last cut are forgotten for a read.
    mutating func noteForgotten(_ table: Int, _ key: Int) {
        guard tables[table].isShared else { return }
        var isForgotten = false
        forEachRow(table, key) { buffer, row in
            let state = buffer.tables[table].rows[row]
            let isPut = state.shape == .value || state.shape == .merge
            isForgotten = isForgotten || isPut && state.flags.contains(.gone)
        }
        if isForgotten { tables[table].forgotten.insert(Int32(key)) }
    }

    /// Whether a row that was kept since the last cut stays so: a key came to its name and was to be read,
    /// but is gone or of another type.
    mutating func staysGone(_ table: Int, _ row: Int) -> Bool {
        let shape = tables[table].rows[row].shape
        guard shape == .opaque || shape == .missing, let kept = tables[table].kept[Int32(row)],
            kept == .gone || kept == .doubtful
        else { return false }
        leaveOpaque(table, row)
        tables[table].rows[row].shape = .untouched
        tables[table].rows[row].flags.insert(.gone)
        if tables[table].forgotten.remove(Int32(row)) != nil {
            vanished += 1
            tables[table].rows[row].misfit = Self.vanishedMisfit
        }
        touch(table, row)
        return true
    }

    /// Has the rows of a key go that was read and is of another type.
    mutating func leave(_ table: Int, key: Int, at offset: Int64) {
        if tables[table].forgotten.remove(Int32(key)) != nil { vanish(table, key) }
        clear(table, key, at: offset, .deleted)
    }
}
