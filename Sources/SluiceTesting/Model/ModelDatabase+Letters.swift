public import SluiceCore

extension ModelDatabase {
    /// The code of what is refused here.
    static let refusal = "model.refused"

    /// Whether rows are set aside that can be tried again.
    var hasRefused: Bool {
        deadLetters.contains {
            guard $0.code == Self.refusal else { return false }
            // What a row is that has more than its key can't be told from a value, and what is to be
            // added to one without a key waits for the key.
            let kept = kept(0, $0.identity)
            return $0.operation == .put ? kept != .back : kept == nil || kept == .back
        }
    }

    func isRefused(_ table: Int, _ value: Stored) -> Bool {
        guard refuses, table == 0 || refusedShare != nil else { return false }
        let share = refusedShare ?? 4
        return switch value {
        case .integer(let number): number % share == share - 1
        case .real(let number): refusedShare != nil && Int64(number) % share == share - 1
        default: false
        }
    }

    mutating func refuse(
        _ rows: RowSet, _ row: Int, _ table: Int, _ merge: Merge? = nil,
    ) {
        let mapping = mappings[table]
        let letter = DeadLetter(
            refusing: rows, row,
            columns: merge.map { $0.columns.map { mapping.values[$0] } } ?? mapping.values,
            adds: merge.map { $0.actions.map { $0 == .add } } ?? [],
            operation: merge == nil ? .put : .merge, table: mapping.name, code: Self.refusal,
            message: "refused")
        refused.append(letter)
        everRefused.insert(letter.identity.key)
    }

    /// Tries the rows that were refused once more, as a sink does.
    public mutating func retry(at checkpoint: Checkpoint) throws(SinkError) -> LetterOutcome {
        guard checkpoint == self.checkpoint else {
            throw SinkError(.fenced, code: "sink.fenced", "another instance writes")
        }
        var outcome = LetterOutcome()
        for letter in deadLetters where letter.code == Self.refusal {
            let table = mappings.firstIndex { $0.name == letter.table } ?? 0
            if letter.operation != .merge, kept(table, letter.identity) == .back { continue }
            guard letter.operation == .put, let values = Self.values(letter) else {
                outcome.unread.append(letter)
                continue
            }
            if isRefused(table, values[0]) {
                outcome.refused.append(letter)
            } else {
                tables[table][letter.identity] = values
                outcome.written.append(letter)
            }
        }
        deadLetters.removeAll { outcome.written.contains($0) }
        return outcome
    }

    /// What a letter of a counter or score says that the row is.
    static func values(_ letter: DeadLetter) -> [Stored]? {
        guard let value = letter.value else { return nil }
        let fields = object(String(decoding: value, as: UTF8.self).replacing("null", with: "\"\""))
        if let score = fields["score"].flatMap({ Double($0) }) { return [.real(score)] }
        guard let number = fields["value"].flatMap({ Int64($0) }) else { return nil }
        let time = Array((fields["expires_at"] ?? "").utf8)
        return [.integer(number), Timestamp.microseconds(time.span).map(Stored.integer) ?? .null]
    }
}
