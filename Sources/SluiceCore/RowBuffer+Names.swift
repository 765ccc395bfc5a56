extension Row.Flags {
    /// What ends when a row begins another state.
    static let ofState: Self = [
        .gone, .marked, .spared, .swept, .others, .own, .removed, .stored, .untyped,
    ]
}

extension Key.Flags {
    /// What a key is said to be while it waits for a read.
    static let ofRead: Self = [.own, .stored, .untyped, .looked]
}

// DEL does not say what a key was, and a table shares names with others, or with keys that are there by
// mistake. So a row that nothing has put since it was last known goes with its name only if the database
// does not remember that it outlived its own key; and a row that the buffer knows to be gone stays as it
// is, whatever else has the name and goes.
extension RowBuffer {
    /// Whether what removes a key is to be heard for a row: else its own key was gone already, and this
    /// one was another's.
    func isThere(_ table: Int, _ row: Int) -> Bool {
        guard tables[table].isShared else { return true }
        let state = tables[table].rows[row]
        let isLeaving =
            state.shape == .untouched
            && (state.flags.contains(.swept)
                || tables[table].keptTable != nil && tables[table].kept[Int32(row)] == nil)
        return !isLeaving && state.shape != .absent && !state.flags.contains(.gone)
    }

    /// Whether what removes a key is to be heard for its rows: see ``isThere(_:_:)``.
    func isThere(_ table: Int, key: Int, before offset: Int64) -> Bool {
        guard tables[table].isShared else { return true }
        let isGone =
            tables[table].keptTable != nil || tables[table].keptKeys[Int32(key)] != nil
            || tables[table].keys[key].flags.contains(.cleared)
        return !isGone || isPut(table, key, before: offset)
    }

    /// Whether a row may have outlived an earlier key of its name, and not be the one that is removed.
    func mayHaveOutlived(_ table: Int, _ row: Int) -> Bool {
        guard tables[table].isShared, tables[table].mapping.canKeep else { return false }
        let state = tables[table].rows[row]
        let key = Int(state.key)
        guard !state.flags.contains(.own), !tables[table].isWiped,
            !tables[table].keys[key].flags.contains(.cleared),
            // One that came back, or was read after the rest was gone.
            tables[table].kept[Int32(row)] == nil
        else { return false }
        // What removes a member says that the key is its own.
        guard tables[table].mapping.isOneRowPerKey || state.flags.contains(.swept) else {
            return false
        }
        let isUnread = state.shape == .opaque || state.shape == .missing
        let deletes = tables[table].mapping.removal.onDelete == .delete
        return state.shape == .untouched || deletes && (isUnread || state.shape == .update)
    }

    /// Has a row go, or its time be marked, only if the database does not remember that it outlived its
    /// key.
    mutating func sweepRemoved(_ table: Int, _ row: Int) {
        let isForgotten = tables[table].forgotten.remove(Int32(row)) != nil
        tables[table].rows[row].flags.formUnion([.swept, .removed])
        tables[table].rows[row].flags.remove(.unknown)
        sweepOut(table, row)
        if isForgotten { vanished += 1 }
        tables[table].rows[row].misfit = isForgotten ? Self.vanishedMisfit : nil
    }

    /// Whether the buffer knows that a row's key was its own after it was last gone.
    func isSurelyOwn(_ table: Int, _ row: Int) -> Bool {
        let state = tables[table].rows[row]
        return switch state.shape {
        case .value, .merge: !state.flags.contains(.gone)
        // It is on its way out of the database.
        case .absent: state.flags.contains(.dirty)
        case .missing: state.flags.contains(.own)
        case .untouched, .update, .opaque: false
        }
    }

    /// Notes that the key of a row that waits for a read is its own.
    @inline(__always)
    mutating func noteOwn(_ table: Int, _ row: Int) {
        guard tables[table].isShared else { return }
        tables[table].rows[row].flags.insert(.own)
        if tables[table].kept[Int32(row)] != nil { tables[table].forgetKept(row) }
    }

    /// Notes what a command says of the type of a key that waits for a read.
    ///
    /// - Parameter write: What the command did to it, or nil when it may be of any type now.
    mutating func noteType(_ table: Int, _ key: Int, _ write: CommandDescription.Write?) {
        guard tables[table].isShared, tables[table].mapping.type != .stream else { return }
        let row = Int(tables[table].keys[key].first)
        let isOneRow = tables[table].mapping.isOneRowPerKey
        switch write {
        case .changed where isOneRow: noteOwn(table, row)
        case .changed: tables[table].keys[key].flags.insert(.own)
        case .overwritten where isOneRow:
            mayBeStored = true
            tables[table].rows[row].flags.insert(.stored)
        case .overwritten:
            mayBeStored = true
            tables[table].keys[key].flags.insert(.stored)
        case .oneOfSeveral where isOneRow, nil where isOneRow:
            tables[table].rows[row].flags.remove(.stored)
            tables[table].rows[row].flags.insert(.untyped)
        case .oneOfSeveral, nil:
            tables[table].keys[key].flags.remove(.stored)
            tables[table].keys[key].flags.insert(.untyped)
        }
    }

    /// Takes a key that a command stored for the table's own, because it was there to be removed.
    @inline(__always)
    mutating func ownStored(_ table: Int, _ key: Int) {
        guard tables[table].isShared else { return }
        let row = Int(tables[table].keys[key].first)
        if tables[table].mapping.isOneRowPerKey {
            guard tables[table].rows[row].flags.contains(.stored) else { return }
            tables[table].rows[row].flags.remove(.stored)
            noteOwn(table, row)
        } else if tables[table].keys[key].flags.contains(.stored) {
            tables[table].keys[key].flags.remove(.stored)
            tables[table].keys[key].flags.insert(.own)
        }
    }

    /// A command says that a key is another table's: what one stored there before was nothing.
    mutating func leaveStored(_ table: Int, _ key: Int) {
        tables[table].keys[key].flags.remove(.stored)
        if tables[table].mapping.isOneRowPerKey {
            tables[table].rows[Int(tables[table].keys[key].first)].flags.remove(.stored)
        }
    }

    /// Notes that a command changed a key, of which the effect is in what was read of it or will be.
    ///
    /// - Parameter write: What the command did, or nil when the key may be of any type now.
    mutating func noteSkipped(
        _ table: Int, _ key: Int, _ write: CommandDescription.Write? = .changed,
        isPart: Bool = false,
    ) {
        let flags = tables[table].keys[key].flags
        guard !flags.isDisjoint(with: [.opaque, .missing]) else { return }
        // Its last state is to be read, or was: it is not there for a baseline alone. Yet rows may have
        // outlived an earlier one, unless the command put all of it in their place.
        if flags.isSuperset(of: [.missing, .baseline]) {
            tables[table].keys[key].flags.remove(.baseline)
            tables[table].keys[key].flags.insert(.looked)
        }
        if write == nil && !isPart || write == .overwritten {
            tables[table].keys[key].flags.remove(.looked)
        }
        noteType(table, key, write)
    }

    /// See ``noteSkipped(_:_:_:)``: of a row.
    mutating func noteSkipped(
        _ table: Int, row: Int, _ write: CommandDescription.Write? = .changed,
    ) {
        guard tables[table].rows[row].shape == .missing else { return }
        if write == .changed { tables[table].rows[row].flags.remove(.swept) }
        if tables[table].mapping.isOneRowPerKey {
            noteType(table, Int(tables[table].rows[row].key), write)
        } else {
            noteOwn(table, row)
        }
    }

    /// Notes that what changed a row which waits for a read is forgotten: it may only have been looked
    /// for, so that it stays if it outlived its key; or something was made of it, which is lost with it.
    mutating func noteRestored(_ table: Int, _ row: Int) {
        guard tables[table].rows[row].shape == .opaque else { return }
        tables[table].rows[row].flags.formUnion([.swept, .untyped])
    }

    /// Whether a row of which the name is another's went in a time that was not seen: no command since
    /// says that its key was there.
    func isReplacedUnseen(_ table: Int, _ row: Int) -> Bool {
        let flags = tables[table].rows[row].flags
        return tables[table].isShared && flags.contains(.others)
            && flags.isDisjoint(with: [.own, .stored, .untyped])
    }

    /// See ``isReplacedUnseen(_:_:)``: all rows of a key.
    func isReplacedUnseen(_ table: Int, key: Int) -> Bool {
        let flags = tables[table].keys[key].flags
        return tables[table].isShared && flags.contains(.others)
            && flags.isDisjoint(with: [.own, .stored, .untyped])
    }

    /// Leaves such a row as it is: as others without a key, a comparison counts it.
    mutating func leaveUnseen(_ table: Int, _ row: Int) {
        guard !staysGone(table, row, isKept: true) else { return }
        leaveOpaque(table, row)
        unspare(table, row)
        tables[table].fill(row, with: .unchanged)
        tables[table].rows[row].shape = .untouched
        tables[table].rows[row].flags.subtract(Row.Flags.ofState)
        tables[table].rows[row].flags.remove(.dirty)
    }

    /// Whether the buffer knows that a key was of its table's type after it was last gone, by what
    /// stands before an offset.
    func isPut(_ table: Int, _ key: Int, before offset: Int64) -> Bool {
        if tables[table].keys[key].flags.contains(.own) { return true }
        var row = Int(tables[table].keys[key].first)
        while row >= 0 {
            let state = tables[table].rows[row]
            let isPut =
                switch state.shape {
                case .value, .merge: true
                case .opaque: !state.flags.contains(.swept)
                case .untouched, .update, .absent, .missing: false
                }
            if isPut, !state.flags.contains(.gone), state.readOffset < offset { return true }
            row = Int(state.next)
        }
        return false
    }

    /// Has the rows of a key that are to be cleared go only if they did not outlive an earlier key.
    mutating func sweepCleared(_ table: Int, _ key: Int, before: Key.Flags) {
        guard tables[table].isShared else { return }
        sweepLooked(table, key, before: before)
    }

    /// See ``sweepCleared(_:_:before:)``: of a key that was only looked for.
    mutating func sweepLooked(_ table: Int, _ key: Int, before: Key.Flags) {
        let wasCleared = before.contains(.cleared) && !before.contains(.swept)
        guard tables[table].mapping.canKeep, !tables[table].isWiped, !wasCleared,
            tables[table].keys[key].flags.contains(.cleared)
        else { return }
        tables[table].keys[key].flags.insert(.swept)
        tables[table].keys[key].flags.remove(.unknown)
        // With the row stays its dead letter.
        forEachRow(table, key) { buffer, row in
            let state = buffer.tables[table].rows[row]
            guard state.shape == .absent || state.shape == .untouched && state.misfit == nil,
                state.flags.isSuperset(of: [.setAside, .dirty])
            else { return }
            buffer.tables[table].rows[row].flags.formUnion([.swept, .removed])
            buffer.tables[table].rows[row].flags.remove(.unknown)
            buffer.sweepOut(table, row)
        }
    }

    /// A key that was read went before that: what it has now came later, and says nothing of rows that
    /// outlived an earlier one.
    mutating func sweepUnproven(_ table: Int, _ key: Int) {
        guard tables[table].keys[key].flags.contains(.unproven) else { return }
        tables[table].keys[key].flags.remove(.unproven)
        if tables[table].keptKeys[Int32(key)] != nil {
            // All that the database has outlived the key since the last cut.
            tables[table].keys[key].flags.subtract([.cleared, .marking, .swept, .certain])
        } else {
            sweepLooked(table, key, before: [])
        }
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

    /// Leaves a row with a dead letter, or of which the key was gone before it could be read, to the read
    /// that comes: whether the key is the row's own again, or another's, it will say.
    mutating func spareLetter(_ table: Int, _ row: Int) -> Bool {
        let state = tables[table].rows[row]
        let isVanished = state.misfit?.code == .vanished
        guard isVanished || state.flags.contains(.setAside) else { return false }
        leaveOpaque(table, row)
        tables[table].fill(row, with: .unchanged)
        tables[table].rows[row].shape = .untouched
        tables[table].rows[row].flags.subtract(Row.Flags.ofState)
        tables[table].forgetKept(row)
        if !isVanished {
            tables[table].rows[row].misfit = nil
            tables[table].rows[row].flags.remove(.dirty)
        }
        return true
    }

    /// Forgets that a key was gone before it could be read, because it came back and was read.
    mutating func endVanished(_ table: Int, _ key: Int) {
        guard tables[table].isShared else { return }
        forEachRow(table, key) { buffer, row in
            let state = buffer.tables[table].rows[row]
            guard state.misfit?.code == .vanished, state.shape == .untouched else { return }
            buffer.tables[table].rows[row].misfit = nil
            if !state.flags.contains(.setAside) {
                buffer.tables[table].rows[row].flags.remove(.dirty)
            }
        }
    }

    /// Whether a row that was kept since the last cut stays so: a key came to its name and was to be read,
    /// but is gone or of another type.
    ///
    /// - Parameter isKept: Whether such a key's row stays: then what a command made of it is not known.
    mutating func staysGone(_ table: Int, _ row: Int, isKept: Bool) -> Bool {
        let isUntyped = tables[table].rows[row].flags.contains(.untyped)
        let shape = tables[table].rows[row].shape
        guard tables[table].isShared, shape == .opaque || shape == .missing,
            let kept = tables[table].kept[Int32(row)],
            kept == .gone || kept == .doubtful
        else { return false }
        leaveOpaque(table, row)
        tables[table].rows[row].shape = .untouched
        tables[table].rows[row].flags.insert(.gone)
        let isForgotten = tables[table].forgotten.remove(Int32(row)) != nil
        if isForgotten || isKept && isUntyped {
            vanished += 1
            tables[table].rows[row].misfit = Self.vanishedMisfit
        }
        touch(table, row)
        return true
    }

    /// Notes that a row or key was read and its name is another's, and that why it went is still to be
    /// seen: it went before the read.
    mutating func noteReplaced(_ item: Opaque) {
        // Who only names keys says nothing more.
        guard isExact else { return }
        if let row = item.row {
            guard tables[item.table].rows[row].shape == .missing else { return }
            tables[item.table].rows[row].flags.insert(.others)
        } else if !tables[item.table].keys[item.key].flags.contains(.missing) {
            return
        }
        tables[item.table].keys[item.key].flags.insert(.others)
    }

    /// What stands in the stream after a key was read of which the name is another's is not its removal:
    /// it went before.
    @inline(__always)
    mutating func resolveReplaced(_ table: Int, _ key: Int, before offset: Int64) {
        guard tables[table].keys[key].flags.contains(.others) else { return }
        resolveReplaced(before: offset)
    }

    /// See ``resolveReplaced(_:_:before:)``: of all keys.
    mutating func resolveReplaced(before offset: Int64) {
        for item in missing where isReplaced(item, before: offset) { resolveMissing(item) }
    }

    private func isReplaced(_ item: Opaque, before offset: Int64) -> Bool {
        guard let row = item.row else {
            let key = tables[item.table].keys[item.key]
            return key.flags.isSuperset(of: [.missing, .others]) && offset > key.readOffset
        }
        let state = tables[item.table].rows[row]
        return state.shape == .missing && state.flags.contains(.others)
            && Int(state.key) == item.key && offset > state.readOffset
    }

    /// Has the rows of a key go that was read and is of another type.
    mutating func leave(_ table: Int, key: Int, at offset: Int64) {
        if tables[table].forgotten.remove(Int32(key)) != nil { vanish(table, key) }
        let before = tables[table].keys[key].flags
        let isLooked = before.contains(.looked)
        // What was trimmed was emptied, before a command of another type came to the name.
        clear(table, key, at: offset, .deleted, isEmptied: isLooked)
        if isLooked { sweepLooked(table, key, before: before) }
    }
}
