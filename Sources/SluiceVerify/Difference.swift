public import SluiceCore

/// A row that is not what Redis has.
public struct Difference: Hashable, Sendable, CustomStringConvertible {
    /// The table.
    public let table: String
    /// Where the row comes from.
    public let identity: RowIdentity
    /// The primary key's columns as texts.
    public let row: [String]
    /// What Redis has, nil for null, or nil when it has no such row.
    public let expected: [String?]?
    /// What the database has, or nil when it has no such row.
    public let found: [String?]?
    /// Whether Redis has the row's key, though maybe not its member.
    public var hasKey = true

    /// The difference as a sentence.
    public var description: String {
        func list(_ values: [String?]) -> String {
            "[" + values.map { $0.map { "\"\($0)\"" } ?? "null" }.joined(separator: ", ") + "]"
        }
        let name = "\(table) \(row.joined(separator: " "))"
        guard let expected else { return "\(name): extra, not in Redis" }
        guard let found else { return "\(name): missing, expected \(list(expected))" }
        return "\(name): different, expected \(list(expected)), found \(list(found))"
    }
}

/// What a verification found.
public struct Outcome: Sendable {
    /// The most differences that are listed; further ones are only counted.
    public static let listedMax = 10_000

    /// The rows that were compared.
    public internal(set) var compared = 0
    /// How many rows differ.
    public internal(set) var differ = 0
    /// Those rows, as many as are listed.
    public internal(set) var differences: [Difference] = []
    /// Rows that outlived their keys.
    public internal(set) var kept = 0
    /// Rows that were set aside.
    public internal(set) var setAside = 0
    /// Rows that could not be compared, as sentences, as many as are listed.
    public internal(set) var open: [String] = []
    /// How many rows could not be compared.
    public internal(set) var openCount = 0
    /// Rows that were read and written again because they differed.
    public internal(set) var repaired = 0

    mutating func add(_ difference: Difference) {
        differ += 1
        if differences.count < Self.listedMax { differences.append(difference) }
    }

    mutating func leaveOpen(_ name: String) {
        openCount += 1
        if open.count < Self.listedMax { open.append(name) }
    }
}

/// A running instance, as far as a comparison needs it.
public protocol RunningInstance: Sendable {
    /// Waits until everything that was written so far is committed.
    func flush() async throws
    /// Holds the stream; nil while it can't be held.
    func hold() async throws -> HeldPlace?
    /// Lets the stream go on to a place, and has everything up to there committed; false when that
    /// is not to be had.
    func advance(to place: HeldPlace) async throws -> Bool
    /// Lets the stream go on; false when it was not held any more.
    func release(_ hold: HeldPlace) async throws -> Bool
    /// Has rows read from Redis and written again.
    func readAgain(_ rows: [RowIdentity], table: String) async throws
}
