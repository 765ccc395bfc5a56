// Rows of the database that may have no key in Redis are read alone, without a change that asks for
// it. What is read replaces the row as any read does. A row that is not there goes, but only if the
// database does not remember that it outlived its key, which it alone knows, at the commit.
extension RowBuffer {
    /// Has a row read that the database has, to see whether Redis has it and how.
    ///
    /// A row that is changing is let be: it is on its way already.
    ///
    /// - Returns: False when a part of it is still to be written, so that it can't be read yet.
    @discardableResult
    mutating func lookAgain(_ table: Int, _ row: Int) -> Bool {
        let state = tables[table].rows[row]
        let key = tables[table].keys[Int(state.key)]
        guard key.flags.isDisjoint(with: [.opaque, .missing]) else {
            // A read that does not find it need not have it go.
            if tables[table].readsUnknown { noteTrimmed(table, Int(state.key)) }
            return state.shape != .merge && state.shape != .update
        }
        guard state.flags.isDisjoint(with: [.dirty, .gone]) else {
            return state.shape != .merge && state.shape != .update
        }
        switch state.shape {
        case .value: touch(table, row)
        // It goes with its key, whatever comes to it then.
        case .untouched where key.flags.contains(.cleared) || tables[table].isWiped,
            .absent where key.flags.contains(.cleared) || tables[table].isWiped:
            break
        case .untouched, .absent:
            makeOpaque(table, row, isOwn: false)
            spare(table, row)
            tables[table].rows[row].flags.insert(.swept)
            tables[table].rows[row].flags.subtract([.unknown, .removed])
        case .merge, .update, .opaque, .missing: break
        }
        return true
    }

    /// Notes which tables have dead letters of rows that a baseline which ends did not find: tried again,
    /// these are rows without a key.
    mutating func noteUnseenLetters() {
        for table in tables.indices {
            for row in tables[table].rows.indices { noteUnseenLetter(table, row) }
        }
    }

    /// See ``noteUnseenLetters()``: of one row, whose letter is tried before a baseline ends.
    mutating func noteUnseenLetter(_ table: Int, _ row: Int) {
        let state = tables[table].rows[row]
        let mapping = tables[table].mapping
        guard mapping.type != .stream, state.flags.contains(.setAside), state.readOffset == .min,
            state.shape == .untouched, mapping.isOneRowPerKey || !state.member.isEmpty
        else { return }
        incomplete.insert(table)
    }

    /// Has a row go that was looked for in vain.
    mutating func sweepOut(_ table: Int, _ row: Int) {
        leaveOpaque(table, row)
        unspare(table, row)
        tables[table].fill(row, with: .unchanged)
        tables[table].rows[row].shape = .untouched
        touch(table, row)
    }
}

extension Interpreter {
    /// Has rows of a table read again; see ``RowBuffer/lookAgain(_:_:)``.
    ///
    /// - Returns: The rows that can't be read before what is dirty of them is on its way.
    mutating func lookAgain(_ rows: [RowIdentity], _ table: Int) -> [RowIdentity] {
        let mapping = mappings[table]
        var later: [RowIdentity] = []
        for row in rows where mapping.keys.matches(row.key.span) {
            let key = buffer.tables[table].key(row.key.span)
            if mapping.type == .stream {
                buffer.makeKeyOpaque(table, key, .none)
            } else if mapping.isOneRowPerKey {
                let single = Int(buffer.tables[table].keys[key].first)
                if !buffer.lookAgain(table, single) { later.append(row) }
            } else {
                let member = buffer.tables[table].member(row.member.span, of: key)
                if !buffer.lookAgain(table, member) { later.append(row) }
            }
        }
        return later
    }
}
