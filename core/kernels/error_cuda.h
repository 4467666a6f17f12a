// What CUDA's error codes mean to whoever runs a study.
#pragma once

#include <cuda_runtime.h>

#include "core/contract/error.h"

namespace strata {

// input: a call was wrong, the device goes on. After fault and lost, every later call of the
// process fails too.
inline ErrorKind kind_of(cudaError_t status) {
  switch (int(status)) {
    case cudaErrorMemoryAllocation:
      return ErrorKind::resource;
    case cudaErrorInsufficientDriver:
    case cudaErrorCallRequiresNewerDriver:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorDevicesUnavailable:
    case cudaErrorSystemNotReady:
    case cudaErrorInitializationError:
    case cudaErrorMpsConnectionFailed:
    case cudaErrorMpsServerNotReady:
    case cudaErrorMpsMaxClientsReached:
    case cudaErrorMpsMaxConnectionsReached:
      return ErrorKind::device;
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorMpsRpcFailure:
    case cudaErrorMpsClientTerminated:  // by the fault of another client
    case 226:                           // cudaErrorContained, of newer toolkits
      return ErrorKind::fault;
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContextIsDestroyed:
    case cudaErrorUnknown:
      return ErrorKind::lost;
    default:
      return ErrorKind::input;
  }
}

}  // namespace strata
