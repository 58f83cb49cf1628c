//! What decisions and the state that they are made on must hold.
