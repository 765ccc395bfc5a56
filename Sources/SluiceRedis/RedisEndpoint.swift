/// Where a Redis server is, and as whom to speak to it.
public struct RedisEndpoint: Hashable, Sendable {
    /// An address.
    public enum Address: Hashable, Sendable, CustomStringConvertible {
        /// A host and its port.
        case tcp(host: String, port: Int)
        /// The path of a socket.
        case unix(String)
        /// The present master of this name, as one of these Sentinels says.
        case sentinel([Sentinel], master: String)

        /// The address as text.
        public var description: String {
            switch self {
            case .tcp(let host, let port): "\(host):\(port)"
            case .unix(let path): path
            case .sentinel(let sentinels, let master):
                "the master \(master) of the Sentinels at "
                    + sentinels.map { "\($0.host):\($0.port)" }.joined(separator: ", ")
            }
        }
    }

    /// Where a Sentinel is.
    public struct Sentinel: Hashable, Sendable {
        /// Its host.
        public let host: String
        /// Its port, by default 26379.
        public let port: Int

        /// Creates an address.
        public init(host: String, port: Int = 26_379) {
            self.host = host
            self.port = port
        }
    }

    /// How TLS is done; certificates are always verified.
    public struct TLS: Hashable, Sendable {
        /// A file of certificate authorities to trust instead of the system's.
        public let caFile: String?

        /// Creates settings.
        public init(caFile: String? = nil) {
            self.caFile = caFile
        }
    }

    /// The address.
    public let address: Address
    /// The user, or nil for the default user.
    public let user: String?
    /// The password.
    public let password: String?
    /// The number of the database.
    public let database: Int
    /// TLS, or nil for none.
    public let tls: TLS?

    /// Creates an endpoint.
    public init(
        address: Address, user: String? = nil, password: String? = nil, database: Int = 0,
        tls: TLS? = nil,
    ) {
        self.address = address
        self.user = user
        self.password = password
        self.database = database
        self.tls = tls
    }
}

/// A failure to speak with Redis.
public struct RedisError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What to do about it.
    public enum Response: Hashable, Sendable {
        /// Try again later.
        case retry
        /// A person has to act first.
        case halt
    }

    /// The server was the master and is not any more.
    public static let noMaster = RedisError(.retry, "the server is no master any more")

    /// What to do about it.
    public let response: Response
    /// What happened, in one sentence.
    public let message: String
    /// What a person can do about it.
    public let hint: String?

    /// Creates an error.
    public init(_ response: Response, _ message: String, hint: String? = nil) {
        self.response = response
        self.message = message
        self.hint = hint
    }

    /// The message and the hint.
    public var description: String { hint.map { "\(message); \($0)" } ?? message }
}
