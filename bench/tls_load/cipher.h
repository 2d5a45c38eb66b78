// What the cipher alone costs.
#pragma once

#include "../load_client/run.h"
#include "options.h"

namespace tls_load {

// For every request the message is decrypted and encrypted by this process, record by record, as
// TLS has it, and nothing else is done.
void run_cipher(const Options& options, load_client::Run& run);

}  // namespace tls_load
