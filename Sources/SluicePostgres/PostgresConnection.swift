internal import CPostgres
internal import SluiceCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// A connection to PostgreSQL. Every call blocks its thread, but never longer than a limit.
///
/// The handle is freed with it and leaves it nowhere else, which makes the class safe to use.
@safe
final class PostgresConnection {
    /// The longest that a connection takes to be made.
    static let connectSecondsMax = 10
    /// A parameter.
    enum Parameter {
        case null
        case text(String)
        /// A value or array in PostgreSQL's binary form.
        case binary([UInt8])
    }

    /// The rows of an answer, as text; and how many rows a statement changed.
    struct Result {
        let rows: [[String?]]
        let changed: Int
    }

    /// How many statements the server keeps prepared.
    private static let preparedMax = 256

    private let handle: OpaquePointer
    private var prepared: [String: String] = [:]
    /// The longest that one statement may take before the connection is given up: a server that
    /// hangs is then tried anew.
    private var statementMillisecondsMax: Int32 = 60_000

    init(url: String) throws(SinkError) {
        try Self.check(url)
        guard let handle = unsafe PQconnectStart(url) else {
            throw SinkError(.retry, code: "postgres.memory", "libpq has no memory")
        }
        unsafe self.handle = handle
        // Notices would go to the standard error, in the middle of the log.
        _ = unsafe PQsetNoticeProcessor(handle, { _, _ in }, nil)
        // When this throws, the object is complete already, and its deinit frees the handle.
        try connect()
    }

    deinit { unsafe PQfinish(handle) }

    private func connect() throws(SinkError) {
        var wanted = PGRES_POLLING_WRITING
        while true {
            if unsafe PQstatus(handle) == CONNECTION_BAD { throw connectionError() }
            switch wanted {
            case PGRES_POLLING_OK:
                // A server that reads nothing must not hold this thread either.
                guard unsafe PQsetnonblocking(handle, 1) == 0 else { throw lost() }
                return
            case PGRES_POLLING_FAILED:
                throw connectionError()
            case PGRES_POLLING_READING:
                try wait(for: POLLIN, milliseconds: Int32(Self.connectSecondsMax * 1_000))
            default:
                try wait(for: POLLOUT, milliseconds: Int32(Self.connectSecondsMax * 1_000))
            }
            wanted = unsafe PQconnectPoll(handle)
        }
    }

    /// Refuses an address that libpq can't read. Its own message would quote parts of a password
    /// that was not percent-encoded.
    private static func check(_ url: String) throws(SinkError) {
        let rest = url.drop { $0 != "@" }.dropFirst()
        var message: UnsafeMutablePointer<CChar>?
        let options = unsafe PQconninfoParse(url, &message)
        defer {
            unsafe PQconninfoFree(options)
            unsafe PQfreemem(message)
        }
        guard unsafe options == nil || rest.prefix(while: { $0 != "?" }).contains("@") else {
            return
        }
        throw SinkError(
            .halt, code: "postgres.url", "database.url is no address that PostgreSQL can read",
            hint: "percent-encode the user and password: @ is %40, / is %2F, % is %25",
        )
    }

    // The text of libpq names host, port, user and database; an address that it could not read
    // was refused before.
    private func connectionError() -> SinkError {
        let text = message
        let isHopeless =
            text.contains("authentication failed") || text.contains("does not exist")
            || text.contains("no pg_hba.conf entry") || text.contains("invalid connection option")
        // What libpq says of certificates and of servers without TLS.
        let isTLS = ["does not support SSL", "certificate"].contains { text.contains($0) }
        let hint =
            isTLS
            ? "a server on another machine must show a certificate for its name: sslrootcert=FILE "
                + "in database.url trusts another authority, sslmode=disable none at all"
            : "check database.url: user, password, database"
        return SinkError(
            isHopeless || isTLS ? .halt : .retry, code: "postgres.connect",
            "can't connect to PostgreSQL: \(text)", hint: isHopeless || isTLS ? hint : nil,
        )
    }

    private func wait(for events: Int32, milliseconds: Int32) throws(SinkError) {
        var poller = pollfd(
            fd: unsafe PQsocket(handle), events: Int16(truncatingIfNeeded: events), revents: 0)
        let ready = unsafe poll(&poller, 1, milliseconds)
        if ready > 0 || ready < 0 && errno == EINTR { return }
        throw SinkError(
            .retry, code: "postgres.timeout",
            "PostgreSQL did not answer within \(milliseconds / 1_000) s",
        )
    }

    // MARK: Statements

    /// Runs a last statement, and does not wait long for it.
    func runLast(_ sql: String) {
        statementMillisecondsMax = 2_000
        _ = try? run(sql)
    }

    /// Limits how long a statement may take. The server's own limit is a little shorter and comes first.
    func limitStatements(_ limit: Duration) throws(SinkError) {
        let milliseconds = PostgresLease.milliseconds(limit)
        try run("SET statement_timeout = \(milliseconds)")
        statementMillisecondsMax = Int32(clamping: milliseconds + 5_000)
    }

    /// Runs a statement without parameters.
    @discardableResult
    func run(_ sql: String) throws(SinkError) -> Result {
        guard unsafe PQsendQuery(handle, sql) == 1 else { throw lost() }
        return try finish()
    }

    /// Runs a statement, prepared once.
    @discardableResult
    func run(_ sql: String, _ parameters: [Parameter]) throws(SinkError) -> Result {
        let name = try prepare(sql)
        var storage: [[UInt8]] = []
        var formats: [Int32] = []
        for parameter in parameters {
            switch parameter {
            case .null: storage.append([])
            case .text(let text): storage.append(Array(text.utf8) + [0])
            case .binary(let bytes): storage.append(bytes)
            }
            if case .binary = parameter { formats.append(1) } else { formats.append(0) }
        }
        let sent = unsafe Self.withPointers(storage, isNull: parameters.map(\.isNull)) { values in
            let lengths = storage.map { Int32($0.count) }
            return unsafe PQsendQueryPrepared(
                handle, name, Int32(parameters.count), values, lengths, formats, 0)
        }
        guard sent == 1 else { throw lost() }
        return try finish()
    }

    private static func withPointers<Value>(
        _ storage: [[UInt8]], isNull: [Bool],
        _ body: ([UnsafePointer<CChar>?]) -> Value,
    ) -> Value {
        unsafe withPointers(storage[...], isNull[...], [], body)
    }

    private static func withPointers<Value>(
        _ storage: ArraySlice<[UInt8]>, _ isNull: ArraySlice<Bool>,
        _ pointers: [UnsafePointer<CChar>?], _ body: ([UnsafePointer<CChar>?]) -> Value,
    ) -> Value {
        guard let first = storage.first, let null = isNull.first else {
            return unsafe body(pointers)
        }
        return unsafe first.withUnsafeBytes { raw in
            // An empty value that is not null still needs an address.
            let address = unsafe raw.baseAddress?.assumingMemoryBound(to: CChar.self)
            return unsafe withPointers(
                storage.dropFirst(), isNull.dropFirst(),
                pointers + [null ? nil : address ?? emptyText], body,
            )
        }
    }

    private nonisolated(unsafe) static let emptyText: UnsafePointer<CChar> = {
        let byte = UnsafeMutablePointer<CChar>.allocate(capacity: 1)
        unsafe byte.initialize(to: 0)
        return unsafe UnsafePointer(byte)
    }()

    private func prepare(_ sql: String) throws(SinkError) -> String {
        if let name = prepared[sql] { return name }
        // Each set of columns that a patch changes has a statement of its own.
        if prepared.count >= Self.preparedMax {
            try run("DEALLOCATE ALL")
            prepared = [:]
        }
        let name = "sluice_\(prepared.count)"
        guard unsafe PQsendPrepare(handle, name, sql, 0, nil) == 1 else { throw lost() }
        try finish()
        prepared[sql] = name
        return name
    }

    private func lost() -> SinkError {
        SinkError(.retry, code: "postgres.lost", "the connection to PostgreSQL: \(message)")
    }

    // libpq's message as one line.
    private var message: String {
        unsafe String(cString: PQerrorMessage(handle)).split(whereSeparator: \.isWhitespace)
            .joined(separator: " ")
    }

    /// Waits for the answer to what was sent.
    @discardableResult
    private func finish() throws(SinkError) -> Result {
        while unsafe PQflush(handle) == 1 {
            try wait(for: POLLOUT | POLLIN, milliseconds: statementMillisecondsMax)
            guard unsafe PQconsumeInput(handle) == 1 else { throw lost() }
        }
        var result = Result(rows: [], changed: 0)
        var failure: SinkError?
        while true {
            while unsafe PQisBusy(handle) == 1 {
                try wait(for: POLLIN, milliseconds: statementMillisecondsMax)
                guard unsafe PQconsumeInput(handle) == 1 else { throw lost() }
            }
            guard let answer = unsafe PQgetResult(handle) else { break }
            defer { unsafe PQclear(answer) }
            switch unsafe PQresultStatus(answer) {
            case PGRES_COMMAND_OK, PGRES_TUPLES_OK: unsafe result = Self.result(answer)
            default: unsafe failure = Self.error(answer)
            }
        }
        if let failure { throw failure }
        guard unsafe PQstatus(handle) == CONNECTION_OK else { throw lost() }
        return result
    }

    private static func result(_ answer: OpaquePointer) -> Result {
        let columns = unsafe PQnfields(answer)
        let rows = unsafe (0..<PQntuples(answer)).map { row in
            (0..<columns).map { column -> String? in
                guard unsafe PQgetisnull(answer, row, column) == 0 else { return nil }
                return unsafe String(cString: PQgetvalue(answer, row, column))
            }
        }
        let changed = unsafe String(cString: PQcmdTuples(answer))
        return Result(rows: rows, changed: Int(changed) ?? 0)
    }

    private static func error(_ answer: OpaquePointer) -> SinkError {
        func field(_ code: Int32) -> String? {
            unsafe PQresultErrorField(answer, code).map { unsafe String(cString: $0) }
        }
        let state = field(Int32(UInt8(ascii: "C"))) ?? "?????"
        // The primary message names table and constraint; the detail would name the value.
        let message = field(Int32(UInt8(ascii: "M"))) ?? "no message"
        return PostgresCodes.error(state: state, message: message)
    }
}

extension PostgresConnection.Parameter {
    fileprivate var isNull: Bool { if case .null = self { true } else { false } }
}
