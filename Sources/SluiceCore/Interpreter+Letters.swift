extension Interpreter {
    /// Remembers a row that was set aside before this instance started.
    mutating func restore(_ letter: DeadLetter) {
        guard let (table, row) = slot(letter.table, letter.identity) else { return }
        buffer.tables[table].rows[row].flags.insert(.setAside)
        buffer.notePending(table, row, letter.pending(mappings[table]))
        let sum = letter.operation == .merge ? letter.addedScore(mappings[table]) : nil
        buffer.noteLetterSum(table, row, sum)
        if mappings[table].type == .stream {
            buffer.tables[table].rows[row].flags.insert(.mistyped)
        }
    }

    /// Remembers that a row was refused: the database does not have what Redis has.
    mutating func refuse(_ letter: DeadLetter) {
        guard let (table, row) = slot(letter.table, letter.identity) else { return }
        let before = buffer.tables[table].pendingTotals[Int32(row)]
        let shape = buffer.tables[table].rows[row].shape
        let wasSpared = buffer.tables[table].rows[row].flags.contains(.spared)
        restore(letter)
        let pending = buffer.tables[table].pendingTotals[Int32(row)]
        // What was folded since is no change of what the database has.
        if shape == .merge || shape == .update {
            // Its key went meanwhile, and may be back: the database does not know yet that it outlived it.
            let kept = buffer.tables[table].kept[Int32(row)]
            let isBack =
                mappings[table].isCounter && kept != nil || mappings[table].isScore && kept == .back
            if isBack || buffer.tables[table].rows[row].flags.contains(.gone) {
                buffer.foldRefused(table, row)
            } else {
                buffer.readFolded(table, row)
            }
        }
        // What is to be added to a row is worth nothing later: the letter is to hold the whole value. But
        // a row that has more than its key never has one: of that the letter holds what is to be added.
        if shape == .untouched, letter.operation == .merge,
            pending == nil || pending != before
        {
            buffer.lookAgain(table, row)
        }
        // What was to be added to a score is in no value that comes later, and so goes with the next one.
        if wasSpared, let sum = buffer.tables[table].letterSums[Int32(row)] {
            buffer.tables[table].spared[Int32(row), default: Spared()].letter += sum
        }
        // It was to go with its key while this was on its way: that ends the letter.
        let key = Int(buffer.tables[table].rows[row].key)
        let isCleared = buffer.tables[table].keys[key].flags.contains(.cleared)
        if buffer.tables[table].isWiped || isCleared, shape == .untouched || shape == .absent,
            buffer.tables[table].rows[row].misfit == nil
        {
            buffer.delete(table, row)
        }
    }

    /// Forgets that a row was set aside: the database has what was kept of it.
    mutating func revive(_ letter: DeadLetter, isBaselineRunning: Bool) {
        guard let (table, row) = slot(letter.table, letter.identity) else { return }
        if isBaselineRunning { buffer.noteUnseenLetter(table, row) }
        buffer.tables[table].rows[row].flags.remove(.setAside)
        buffer.notePending(table, row, nil)
        buffer.noteLetterSum(table, row, nil)
    }
}
