import NIOPosix
import NIOSSL
import Logging
import NIOCore
