# The build step of native and embedded projects: a trained network in, the integer .tflite file, or a library that holds
# it as an array, out. docs/guides/build_step.md shows it in use, examples/cmake is a whole project.
#
#   include(/path/to/intact/tools/intact.cmake)
#   intact_add_model(NAME MODEL FILE
#     [CALIBRATION_DATA FILE_OR_FOLDER] [TEST_DATA FILE_OR_FOLDER] [LABELS CSV] [PREPROCESS tf|torch|caffe|unit|none]
#     [TARGET cpu|edgetpu|...] [PIPELINE fast|default|...] [GRANULARITY per_channel|per_tensor] [IO int8|...]
#     [MIN_AGREEMENT PER_CENT] [MAX_ACCURACY_DROP POINTS] [REQUIRE_FULLY_MAPPED]
#     [C_ARRAY] [OPTIONS FLAG...])
#
# The words are the flags of `convert`; OPTIONS takes further ones. NAME becomes a target that is built by default and
# makes NAME.tflite and its report NAME.json in the current binary folder; its property INTACT_TFLITE is the file's
# path. With C_ARRAY NAME is a static library instead, with NAME.h that declares g_NAME and g_NAME_len. A change of the
# network, the data, the options or Intact converts again, told by the times of the files. Where a gate (MIN_AGREEMENT,
# MAX_ACCURACY_DROP, REQUIRE_FULLY_MAPPED) is not passed, the build stops and nothing is written.

cmake_minimum_required(VERSION 3.17)

# Sets `result` to the files that a path stands for: itself, or all below it where it is a folder.
function(_intact_files result path)
  if(IS_DIRECTORY "${path}")
    file(GLOB_RECURSE path CONFIGURE_DEPENDS LIST_DIRECTORIES FALSE "${path}/*")
  elseif(NOT EXISTS "${path}")
    message(FATAL_ERROR "intact_add_model: expected a file or a folder, found nothing at ${path}; check the path.")
  endif()
  set(${result} ${path} PARENT_SCOPE)
endfunction()

function(intact_add_model NAME)
  set(paths MODEL CALIBRATION_DATA TEST_DATA LABELS)
  set(values PREPROCESS TARGET PIPELINE GRANULARITY IO MIN_AGREEMENT MAX_ACCURACY_DROP)
  cmake_parse_arguments(ARG "C_ARRAY;REQUIRE_FULLY_MAPPED" "${paths};${values}" "OPTIONS" ${ARGN})
  if(NOT ARG_MODEL OR ARG_UNPARSED_ARGUMENTS OR ARG_KEYWORDS_MISSING_VALUES)
    message(FATAL_ERROR "intact_add_model(${NAME}): expected MODEL and words that intact.cmake lists, found "
      "'${ARGN}'; see its first lines.")
  endif()

  set(home ${CMAKE_CURRENT_FUNCTION_LIST_DIR})
  file(GLOB_RECURSE depends CONFIGURE_DEPENDS
    "${home}/../ir/*.py" "${home}/../passes/*.py" "${home}/../converter/*.py" "${home}/*.py")
  list(FILTER depends EXCLUDE REGEX "_test\\.py$")
  list(APPEND depends ${home}/intact.sh ${home}/bazel/python.sh ${home}/../requirements.txt)
  set(command ${home}/intact.sh --quiet --reproducible)
  foreach(word IN LISTS paths)
    if(ARG_${word})
      get_filename_component(path "${ARG_${word}}" ABSOLUTE)
      _intact_files(files "${path}")
      list(APPEND depends ${files})
      string(TOLOWER ${word} flag)
      list(APPEND command "--${flag}=${path}")
    endif()
  endforeach()
  foreach(word IN LISTS values)
    if(DEFINED ARG_${word})
      string(TOLOWER ${word} flag)
      list(APPEND command "--${flag}=${ARG_${word}}")
    endif()
  endforeach()
  if(ARG_REQUIRE_FULLY_MAPPED)
    list(APPEND command --require_fully_mapped)
  endif()

  set(stem ${CMAKE_CURRENT_BINARY_DIR}/${NAME})
  set(outputs ${stem}.tflite ${stem}.json)
  list(APPEND command --output=${stem}.tflite --json=${stem}.json)
  if(ARG_C_ARRAY)
    set(source ${stem}.c)
    set(standard c_std_11)
    if(CMAKE_CXX_COMPILER)
      set(source ${stem}.cc)
      set(standard cxx_std_11)
    endif()
    list(APPEND outputs ${source} ${stem}.h)
    list(APPEND command --c_array=${source})
  endif()
  add_custom_command(OUTPUT ${outputs} COMMAND ${command} ${ARG_OPTIONS} DEPENDS ${depends}
    COMMENT "Converting ${NAME} into integers" VERBATIM)
  if(ARG_C_ARRAY)
    add_library(${NAME} STATIC ${source} ${stem}.h)
    target_include_directories(${NAME} PUBLIC ${CMAKE_CURRENT_BINARY_DIR})
    target_compile_features(${NAME} PUBLIC ${standard})
  else()
    add_custom_target(${NAME} ALL DEPENDS ${outputs})
  endif()
  set_target_properties(${NAME} PROPERTIES INTACT_TFLITE ${stem}.tflite)
endfunction()
