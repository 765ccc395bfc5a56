import SluiceCore

/// Sluice's own tables in the database.
public enum OwnTables {
    /// A column of the positions that tables made by earlier versions lack, and how it is added.
    public static let identity = (
        table: "sluice_position", column: "identity",
        add: "ALTER TABLE sluice_position ADD COLUMN identity text"
    )

    /// A new name for a database.
    public static func newIdentity() -> String {
        String(UInt64.random(in: .min ... .max), radix: 16)
            + String(UInt64.random(in: .min ... .max), radix: 16)
    }

    /// The statements that make them.
    public static func create(_ dialect: Dialect) -> [String] {
        let bytes = dialect.type(.bytes)
        let integer = dialect.type(.integer)
        let text = dialect.type(.text)
        let time = dialect.type(.timestamp)
        let names = names(dialect)
        return [
            """
            CREATE TABLE IF NOT EXISTS sluice_position (
                source \(text) PRIMARY KEY,
                epoch \(integer) NOT NULL,
                sequence \(integer) NOT NULL,
                replication_id \(text),
                replication_offset \(integer),
                replication_db \(integer),
                baseline_done \(integer) NOT NULL,
                strays \(text) NOT NULL,
                rows_written \(integer) NOT NULL DEFAULT 0,
                committed_at \(time),
                identity \(text)
            )
            """,
            """
            CREATE TABLE IF NOT EXISTS sluice_loose (
                source \(text) NOT NULL,
                table_name \(text) NOT NULL,
                key \(bytes) NOT NULL,
                member \(bytes) NOT NULL,
                read_offset \(integer),
                \(names)
            )
            """,
            """
            CREATE TABLE IF NOT EXISTS sluice_kept (
                source \(text) NOT NULL,
                table_name \(text) NOT NULL,
                key \(bytes) NOT NULL,
                member \(bytes) NOT NULL,
                state \(integer) NOT NULL,
                \(names)
            )
            """,
            """
            CREATE TABLE IF NOT EXISTS sluice_dead_letters (
                source \(text) NOT NULL,
                table_name \(text) NOT NULL,
                key \(bytes) NOT NULL,
                member \(bytes) NOT NULL,
                operation \(text) NOT NULL,
                value \(text),
                code \(text) NOT NULL,
                message \(text) NOT NULL,
                attempts \(integer) NOT NULL,
                first_at \(time) NOT NULL,
                last_at \(time) NOT NULL,
                retry_at \(time),
                replication_id \(text),
                replication_offset \(integer),
                \(names)
            )
            """,
        ]
    }

    // What a row is found by. An index of PostgreSQL takes no name of more than 2,704 bytes.
    private static func names(_ dialect: Dialect) -> String {
        dialect == .sqlite
            ? "PRIMARY KEY (source, table_name, key, member)"
            : hashes.joined(separator: ", ") + ", " + hashedKey
    }

    private static let hashes = ["key", "member"].map {
        "\($0)_hash bytea GENERATED ALWAYS AS (sha256(\($0))) STORED"
    }
    private static let hashedKey = "PRIMARY KEY (source, table_name, key_hash, member_hash)"

    /// What brings a table of PostgreSQL up to date that an earlier version made.
    public static func addHashes(to table: String) -> String {
        let columns = hashes.map { "ADD COLUMN \($0)" }.joined(separator: ", ")
        return "ALTER TABLE \(table) \(columns), DROP CONSTRAINT \(table)_pkey, ADD \(hashedKey)"
    }

    /// Whether a letter that takes the place of `d` knows no value, as the key went before it could be
    /// read, so that the value known before stays for a person to see.
    public static let keepsValue =
        "excluded.code = '\(Misfit.Code.vanished.rawValue)' AND excluded.value IS NULL "
        + "AND d.value IS NOT NULL"

    /// Those that name rows.
    public static let named = ["sluice_loose", "sluice_kept", "sluice_dead_letters"]

    /// Their names.
    public static let names = [
        "sluice_position", "sluice_loose", "sluice_kept", "sluice_dead_letters",
    ]

    /// The names of tables as one text, and back.
    public static func text(_ strays: Set<String>) -> String {
        strays.sorted().joined(separator: "\n")
    }

    /// The names of tables from one text.
    public static func strays(_ text: String) -> Set<String> {
        Set(text.split(separator: "\n").map(String.init))
    }
}
