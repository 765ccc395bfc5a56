// Commands that do not say their effect: the server describes which keys they write, and of which type.
extension Interpreter {
    mutating func applyUnknown(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], at offset: Int64,
    ) -> Effect {
        noteFieldDeadlines(bytes.extracting(arguments[0]))
        let description = description(bytes, arguments)
        if let description, description.isWrite, description.keys.isEmpty { return .unsaid }
        guard let written = description?.written(bytes, arguments) else {
            // Each argument that might be a key is taken for one.
            for argument in arguments.dropFirst() {
                makeOpaque(bytes.extracting(argument), at: offset)
            }
            return .none
        }
        for (index, write) in written.sorted(by: { $0.key < $1.key }) {
            let key = bytes.extracting(arguments[index])
            if let table = become(description?.type, key, write, at: offset) {
                makeOpaque(table, key, write, at: offset)
            } else {
                makeOpaque(key, at: offset, isPart: write == .changed)
            }
        }
        return .none
    }

    mutating func sort(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], at offset: Int64,
    ) {
        // Of several STOREs the last one counts; a pattern may have the name of an option.
        var stored: Int?
        var index = 2
        while index + 1 < arguments.count {
            let option = bytes.extracting(arguments[index])
            if option.isWord("store") { stored = index + 1 }
            if option.isWord("limit") {
                index += 3
            } else {
                let takesWord =
                    option.isWord("store") || option.isWord("by") || option.isWord("get")
                index += takesWord ? 2 : 1
            }
        }
        guard let stored else { return }
        let key = bytes.extracting(arguments[stored])
        if let list = become(.list, key, .overwritten, at: offset) {
            makeOpaque(list, key, .overwritten, at: offset)
        } else {
            makeOpaque(key, at: offset)
        }
    }

    /// Notes that a key is of a type now, or gone, so that it is no other table's.
    ///
    /// - Returns: The table that it is of, or nil when the command does not say, or no table maps that.
    private mutating func become(
        _ type: RedisType?, _ key: borrowing Span<UInt8>, _ write: CommandDescription.Write,
        at offset: Int64,
    ) -> Int? {
        guard let type, write != .oneOfSeveral else { return nil }
        for table in patterns.indices where types[table] == type && maps(table, key) {
            if overlaps { deleteKey(key, at: offset, .deleted, except: type) }
            return table
        }
        return nil
    }

    private func description(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>],
    ) -> CommandDescription? {
        described[Bytes(copying: bytes.extracting(arguments[0])).map(\.lowercasedASCII)]
    }

    // HPEXPIREAT, HSETEX, HGETEX, and values that bring deadlines of their fields with them.
    private mutating func noteFieldDeadlines(_ name: borrowing Span<UInt8>) {
        guard !buffer.mayFieldsExpire, name.count > 0 else { return }
        if name[0].lowercasedASCII == UInt8(ascii: "h") || name.isWord("restore")
            || name.isWord("restore-asking")
        {
            buffer.mayFieldsExpire = true
        }
    }

    // MARK: Arguments that are too large

    mutating func setAside(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], _ name: CommandName?,
        at offset: Int64,
    ) {
        guard arguments.count > 1 else { return }
        let description = description(bytes, arguments)
        let written = description?.written(bytes, arguments) ?? [:]
        for (index, write) in written.isEmpty ? [1: .oneOfSeveral] : written {
            let key = bytes.extracting(arguments[index])
            if let table = become(description?.type, key, write, at: offset) {
                setAside(bytes, arguments, name, table, key, at: offset)
            } else {
                for table in patterns.indices where maps(table, key) {
                    setAside(bytes, arguments, name, table, key, at: offset)
                }
            }
        }
    }

    private mutating func setAside(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], _ name: CommandName?,
        _ table: Int, _ key: borrowing Span<UInt8>, at offset: Int64,
    ) {
        let misfit = Misfit(.tooLarge, "an argument of the command is larger than the limit")
        let slot = buffer.tables[table].key(key)
        if types[table] == .stream {
            setEntryAside(bytes, arguments, name, table, slot, misfit, at: offset)
        } else if mappings[table].isOneRowPerKey {
            let row = Int(buffer.tables[table].keys[slot].first)
            buffer.setAside(table, row, misfit)
        } else {
            let none: Bytes = []
            let row = buffer.tables[table].member(none.span, of: slot)
            buffer.setAside(table, row, misfit)
        }
    }

    // An entry has a name of its own; what else makes a stream is read.
    private mutating func setEntryAside(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>], _ name: CommandName?,
        _ table: Int, _ slot: Int, _ misfit: Misfit, at offset: Int64,
    ) {
        guard name == .xadd, let place = Self.placeOfIdentifier(bytes, arguments) else {
            guard offset > buffer.tables[table].keys[slot].readOffset else { return }
            return buffer.makeKeyOpaque(table, slot, at: offset, .whole)
        }
        buffer.endMistyped(table, key: slot, at: offset)
        buffer.setAside(table, slot, id: bytes.extracting(arguments[place]), misfit)
    }
}
