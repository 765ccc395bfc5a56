public import Foundation
package import SluiceCore

/// A row's name as the admin listener takes it.
public struct RowName: Codable, Hashable, Sendable {
    /// The table.
    public let table: String
    /// The key.
    public let key: Data
    /// The member, empty where a key has one row.
    public let member: Data

    /// Creates a name.
    public init(table: String, key: Data, member: Data) {
        self.table = table
        self.key = key
        self.member = member
    }

    package var identity: RowIdentity {
        RowIdentity(key: Array(key), member: Array(member))
    }
}

/// What is asked of `POST /reconcile`.
public struct ReconcileRequest: Codable, Hashable, Sendable {
    /// Whether rows count too that stay only because nobody knows why their keys went.
    public let doubtful: Bool
    /// The most rows of each table that may be deleted; without it, rows are only counted.
    public let limits: [String: Int]?

    /// Creates a request.
    public init(doubtful: Bool, limits: [String: Int]?) {
        self.doubtful = doubtful
        self.limits = limits
    }
}

/// What is asked of `POST /dead-letters/retry` and `/dead-letters/discard`.
public struct LetterRequest: Codable, Hashable, Sendable {
    /// The table, or all.
    public let table: String?
    /// The key, or all of the table.
    public let key: Data?
    /// The member, or all of the key.
    public let member: Data?

    /// Creates a request.
    public init(table: String?, key: Data?, member: Data?) {
        self.table = table
        self.key = key
        self.member = member
    }

    var choice: LetterChoice {
        LetterChoice(table: table, key: key.map { Array($0) }, member: member.map { Array($0) })
    }
}

/// What is asked of `POST /resume`.
public struct ResumeRequest: Codable, Hashable, Sendable {
    /// Whether rows that are refused become dead letters, however many they are.
    public let setAside: Bool

    /// Creates a request.
    public init(setAside: Bool) {
        self.setAside = setAside
    }
}
