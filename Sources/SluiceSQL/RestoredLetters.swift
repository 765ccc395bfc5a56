internal import Foundation
public import SluiceCore

/// Dead letters of one table as rows again, from the values that were kept with them.
public struct RestoredLetters {
    /// Rows that get a whole new value.
    public private(set) var puts: RowSet
    /// Rows that are appended.
    public private(set) var appends: RowSet
    /// Rows that are deleted.
    public private(set) var removes: RowSet
    /// Rows that are marked as removed.
    public private(set) var marks: RowSet
    /// Rows of which only a part is known.
    public private(set) var unread: [DeadLetter] = []
    /// Rows of which the value still does not fit, with the reason.
    public private(set) var refused: [DeadLetter] = []

    /// Restores the letters of a table.
    package init(_ letters: [DeadLetter], mapping: TableMapping) {
        let empty = TableChanges(table: 0, mapping: mapping)
        puts = empty.puts
        appends = empty.appends
        removes = empty.removes
        marks = empty.marks
        for letter in letters {
            do throws(Misfit) {
                try restore(letter, mapping)
            } catch {
                refused.append(
                    DeadLetter(
                        table: letter.table, identity: letter.identity,
                        operation: letter.operation, value: letter.value,
                        code: error.code.rawValue, message: error.message))
            }
        }
    }

    private mutating func restore(
        _ letter: DeadLetter, _ mapping: TableMapping,
    ) throws(Misfit) {
        // A pattern that changed: the key belongs elsewhere.
        guard mapping.keys.split(letter.identity.key.span) != nil else {
            throw Misfit(.key, "the key does not match the table's pattern any more")
        }
        switch letter.operation {
        case .remove: try removes.append(letter.identity, mapping)
        case .mark: try marks.append(letter.identity, mapping)
        case .merge, .clear: unread.append(letter)
        // What the value was before it changed in a way that nobody knows is for a person to see.
        case .put where letter.code == Misfit.Code.vanished.rawValue: unread.append(letter)
        case .put, .append:
            guard let value = letter.value else {
                guard letter.operation == .append else { return unread.append(letter) }
                // The stream goes on without it: only a person can say what becomes of it.
                throw Misfit(Misfit.Code(rawValue: letter.code) ?? .tooLarge, letter.message)
            }
            let cells = try Self.cells(value, mapping)
            if letter.operation == .put {
                try puts.append(letter.identity, mapping, cells)
            } else {
                try appends.append(letter.identity, mapping, cells)
            }
        }
    }

    private static func cells(_ value: Bytes, _ mapping: TableMapping) throws(Misfit) -> [Cell] {
        let object = try? JSONSerialization.jsonObject(with: Data(value)) as? [String: Any]
        guard let object else { throw Misfit(.type, "expected the value to be a JSON object") }
        var cells: [Cell] = []
        for column in mapping.values {
            switch object[column.name] {
            case let text as String: cells.append(.bytes(Array(text.utf8)))
            case let bytes as [String: String]: cells.append(.bytes(hex(bytes["hex"] ?? "")))
            case is NSNull: cells.append(.null)
            default: throw Misfit(.type, "the value has no column \(column.name)")
            }
        }
        return cells
    }

    private static func hex(_ text: String) -> Bytes {
        let digits = Array(text)
        return stride(from: 0, to: digits.count - 1, by: 2).compactMap {
            UInt8(String(digits[$0...$0 + 1]), radix: 16)
        }
    }
}

extension LetterOutcome {
    /// Adds what came of a table's letters.
    ///
    /// - Parameter refused: Those that the database refused.
    public mutating func add(
        _ letters: [DeadLetter], _ restored: RestoredLetters, refused: [DeadLetter],
    ) {
        let isRefused = Set((refused + restored.refused).map(\.identity))
        let isUnread = Set(restored.unread.map(\.identity))
        self.refused += restored.refused
        // The value stays as it was kept.
        let reasons = Dictionary(refused.map { ($0.identity, $0) }, uniquingKeysWith: { $1 })
        for letter in letters {
            if let reason = reasons[letter.identity] {
                self.refused.append(
                    DeadLetter(
                        table: letter.table, identity: letter.identity,
                        operation: letter.operation, value: letter.value, code: reason.code,
                        message: reason.message))
            } else if isUnread.contains(letter.identity) {
                unread.append(letter)
            } else if !isRefused.contains(letter.identity) {
                written.append(letter)
            }
        }
    }
}
